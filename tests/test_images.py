"""Reading images: odd files become upright RGB, broken ones say what is wrong, nothing else is opened."""

import io
import os
import socket
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from camera_trap_al.core.records import Box
from camera_trap_al.engine import Decoders
from camera_trap_al.errors import ImageUnreadableError
from camera_trap_al.images import DecodeLimits, content_hash, decode, hash_file, read_capture_time, read_image

RED, BLUE = (220, 30, 30), (30, 30, 220)


def left_red_right_blue(width=96, height=64):
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def saved(path, image, **options):
    image.save(path, **options)
    return path


def code_of(path, **options):
    with pytest.raises(ImageUnreadableError) as caught:
        read_image(path, **options)
    assert path.name in str(caught.value)
    return caught.value.code


def close_to(pixel, colour, tolerance=40):
    return np.all(np.abs(pixel.astype(int) - np.array(colour)) <= tolerance)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "bmp", "tiff"])
def test_each_allowed_format_becomes_a_square_of_rgb(tmp_path, suffix):
    pixels = read_image(saved(tmp_path / f"a.{suffix}", left_red_right_blue()), px=32)
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8
    assert close_to(pixels[16, 4], RED) and close_to(pixels[16, 27], BLUE)


def test_the_default_is_256_pixels_and_takes_a_string(tmp_path):
    assert read_image(str(saved(tmp_path / "a.jpg", left_red_right_blue()))).shape == (256, 256, 3)


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK", "I", "I;16", "F"])
def test_odd_modes_keep_their_brightness(tmp_path, mode):
    grey = np.tile(np.repeat(np.array([0, 255], np.uint8), 20), (40, 1))
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(grey.astype(np.float32) / 255)
    else:
        image = Image.fromarray(grey).convert("RGB").convert("L" if mode in ("1", "I") else "RGB").convert(mode)
    pixels = read_image(saved(tmp_path / "a.tiff", image), px=40)
    assert pixels[20, 5].max() <= 5
    assert pixels[20, 35].min() >= 250


def test_a_16_bit_grey_png_is_not_all_white(tmp_path):
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    pixels = read_image(saved(tmp_path / "a.png", Image.fromarray(values)), px=64)
    assert pixels[0].mean() < 5 and 120 < pixels[32].mean() < 136 and pixels[-1].mean() > 250


def test_a_dark_16_bit_image_stays_dark(tmp_path):
    image = Image.fromarray(np.full((8, 8), 200, np.uint16))
    assert read_image(saved(tmp_path / "a.png", image), px=8).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = left_red_right_blue()
    upright.paste((30, 220, 30), (0, 48, 96, 64))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read_image(saved(tmp_path / "a.jpg", stored, exif=exif, quality=95), px=48)
    assert close_to(pixels[8, 6], RED) and close_to(pixels[8, 42], BLUE) and close_to(pixels[45, 24], (30, 220, 30))


def test_a_box_is_a_part_of_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = left_red_right_blue().transpose(Image.Transpose.ROTATE_90)
    path = saved(tmp_path / "a.jpg", stored, exif=exif, quality=95)
    assert close_to(read_image(path, px=16, box=Box(0.0, 0.2, 0.4, 0.5)).reshape(-1, 3).mean(0), RED, 20)
    assert close_to(read_image(path, px=16, box=Box(0.6, 0.2, 0.4, 0.5)).reshape(-1, 3).mean(0), BLUE, 20)


@pytest.mark.parametrize("box", [Box(0.5, 0.5, 0.0, 0.0), Box(0.9, -0.5, 3.0, 9.0), Box(1.0, 1.0, 0.1, 0.1)])
def test_a_box_without_area_or_beyond_the_border_still_gives_pixels(tmp_path, box):
    assert read_image(saved(tmp_path / "a.png", left_red_right_blue()), px=16, box=box).shape == (16, 16, 3)


def test_a_small_box_of_a_large_jpeg_keeps_its_detail(tmp_path):
    image = Image.new("RGB", (2048, 2048), RED)
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::8] = stripes[:, 1::8] = stripes[:, 2::8] = stripes[:, 3::8] = 255
    image.paste(Image.fromarray(stripes), (1024, 1024))
    path = saved(tmp_path / "a.jpg", image, quality=95)
    pixels = read_image(path, px=128, box=Box(0.5, 0.5, 0.0625, 0.0625))
    assert pixels[64].std() > 100


def test_a_scaled_decode_is_near_the_whole_one(tmp_path):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    image = coarse.resize((1600, 1200), Image.Resampling.BICUBIC)
    path = saved(tmp_path / "a.jpg", image, quality=95)
    whole = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(read_image(path, px=64).astype(int) - whole).mean() < 2.5


def test_animations_give_their_first_frame(tmp_path):
    frames = [Image.new("RGB", (20, 20), c) for c in (RED, BLUE)]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert close_to(read_image(path, px=8)[4, 4], RED)


def test_one_pixel_images_are_read(tmp_path):
    assert read_image(saved(tmp_path / "a.png", Image.new("RGB", (1, 1), RED)), px=8).shape == (8, 8, 3)


def test_content_counts_not_the_extension(tmp_path):
    path = tmp_path / "a.jpg"
    left_red_right_blue().save(path, format="PNG")
    assert close_to(read_image(path, px=8)[4, 1], RED)


def test_trailing_bytes_and_broken_metadata_lose_no_pixels(tmp_path):
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40
    path = saved(tmp_path / "a.jpg", left_red_right_blue(), exif=exif, quality=95)
    path.write_bytes(path.read_bytes() + b"trailing" * 100)
    assert close_to(read_image(path, px=8)[4, 1], RED)


def test_an_empty_file_says_so(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"")
    assert code_of(path) == "empty_file"


@pytest.mark.parametrize("keep", [0.9, 0.5])
def test_a_truncated_jpeg_is_refused_and_says_so(tmp_path, keep):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    path = saved(tmp_path / "a.jpg", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    assert code_of(path) == "truncated"


def test_text_is_not_an_image(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"hello, I am no image at all")
    assert code_of(path) == "not_an_image"


@pytest.mark.parametrize(
    "start", [b"%!PS-Adobe-3.0 EPSF-3.0", b"%PDF-1.7", b"8BPS\0\1", b"<svg xmlns=''>", b"SIMPLE  ="]
)
def test_formats_that_run_programs_are_not_allowed(tmp_path, start):
    path = tmp_path / "a.jpg"
    path.write_bytes(start + b"\n" * 200)
    assert code_of(path) == "format_not_allowed"


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"\0\0\0\x18ftypisom" + bytes(200), "format_not_allowed", "is a video file, not a photograph"),
        (b"RIFF\x24\0\0\0WAVEfmt " + bytes(200), "format_not_allowed", "is a sound file"),
        (bytes(40_000), "not_an_image", "nothing but empty bytes"),
        (b"GIF89a\xe8\xfd\xe8\xfd\0\0\0,\0\0\0\0\xe8\xfd\xe8\xfd\0\2\2L\1\0;", "too_large", "100 megapixels"),
        (b"BM", "unreadable", "copy it again"),
    ],
    ids=["video", "sound", "empty bytes", "65000 x 65000", "a start"],
)
def test_what_is_wrong_with_a_file_is_said_in_words(tmp_path, data, code, words):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageUnreadableError, match=words) as caught:
        read_image(path)
    assert caught.value.code == code


def test_a_damaged_png_is_unreadable(tmp_path):
    path = saved(tmp_path / "a.png", left_red_right_blue())
    data = bytearray(path.read_bytes())
    data[60:90] = b"\0" * 30
    path.write_bytes(data)
    assert code_of(path) in ("unreadable", "truncated")


def png_that_claims(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(60_000, 60_000), (10_500, 10_500), (30_000, 10)])
def test_a_bomb_is_refused_by_its_header(tmp_path, size):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_that_claims(*size))
    assert code_of(path) == "too_large"


def test_the_limits_can_be_set(tmp_path):
    path = saved(tmp_path / "a.png", left_red_right_blue())
    assert code_of(path, limits=DecodeLimits(max_pixels=96 * 64 - 1)) == "too_large"
    assert code_of(path, limits=DecodeLimits(max_side=95)) == "too_large"
    assert code_of(path, limits=DecodeLimits(max_bytes=10)) == "too_large"
    assert read_image(path, limits=DecodeLimits(96 * 64, 96)).any()


def test_a_text_that_unpacks_without_end_is_refused(tmp_path):
    image = left_red_right_blue()
    data = saved(tmp_path / "a.png", image).read_bytes()
    bomb = b"zTXt" + b"a\0\0" + zlib.compress(b"\0" * 5_000_000)
    (tmp_path / "a.png").write_bytes(
        data[:33] + struct.pack(">I", len(bomb) - 4) + bomb + struct.pack(">I", zlib.crc32(bomb)) + data[33:]
    )
    assert code_of(tmp_path / "a.png") == "too_large"


def test_a_damaged_remark_in_a_png_costs_no_pixels(tmp_path):
    path = saved(tmp_path / "a.png", left_red_right_blue())
    data = path.read_bytes()
    path.write_bytes(data[:33] + struct.pack(">I", 3) + b"tEXta\0bxxxx" + data[33:])
    assert close_to(read_image(path, px=8)[4, 1], RED)
    path.write_bytes(data[:29] + b"xxxx" + data[33:])
    assert code_of(path) == "unreadable"


def test_what_can_be_decoded_is_used_if_that_is_allowed(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    path = saved(tmp_path / "a.jpg", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[:-3000])
    assert read_image(path, limits=DecodeLimits(allow_truncated=True))[:100].std() > 30
    assert code_of(path) == "truncated"


def test_large_grey_images_of_many_bits_are_mapped_in_parts(tmp_path):
    values = np.full((700, 20), 257 * 40, np.uint16)
    values[600:] = 257 * 200
    pixels = read_image(saved(tmp_path / "a.png", Image.fromarray(values)), px=70)
    assert pixels[30, 5].tolist() == [40] * 3 and pixels[66, 5].tolist() == [200] * 3


def test_the_hash_is_of_the_content_alone(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"x" * 3_000_000)
    assert hash_file(path) == content_hash(b"x" * 3_000_000) != content_hash(b"x")
    assert len(hash_file(path)) == 32
    (tmp_path / "folder").mkdir()
    with pytest.raises(ImageUnreadableError, match="folder"):
        hash_file(tmp_path / "folder")


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no sockets among files here")
def test_a_socket_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket.jpg")
    assert code_of(tmp_path / "socket.jpg") == "not_an_image"


def test_a_missing_file_is_for_the_caller_to_judge(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "gone.jpg")


def test_a_folder_is_not_opened(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    assert code_of(tmp_path / "folder.jpg") == "not_an_image"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert code_of(tmp_path / "pipe.jpg") == "not_an_image"


def test_random_bytes_behind_a_good_header_never_raise_anything_else(tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / "a"
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"):
        buffer = io.BytesIO()
        left_red_right_blue(24, 16).save(buffer, kind)
        for _ in range(25):
            data = bytearray(buffer.getvalue())
            for place in rng.integers(8, len(data), 6):
                data[place] = rng.integers(256)
            path.write_bytes(data)
            try:
                assert read_image(path, px=8).shape == (8, 8, 3)
            except ImageUnreadableError as error:
                assert error.code in ("unreadable", "truncated", "too_large", "not_an_image", "format_not_allowed")


def test_the_capture_time_is_the_cameras(tmp_path):
    exif = Image.Exif()
    exif[0x0132] = "2027-01-01 00:00:00"
    plain = saved(tmp_path / "a.jpg", left_red_right_blue(), exif=exif)
    assert read_capture_time(plain) == 1_798_761_600_000, "of the last change, where there is no other"
    exif.get_ifd(0x8769)[0x9003] = "2026:11:22 10:00:00"
    exif.get_ifd(0x8769)[0x9291] = "07 "
    whole = saved(tmp_path / "b.jpg", left_red_right_blue(), exif=exif)
    assert read_capture_time(whole) == 1_795_341_600_070
    assert decode(whole.read_bytes(), "b.jpg", px=8).taken == 1_795_341_600_070
    assert Decoders(processes=1).read(whole).taken == 1_795_341_600_070
    none = saved(tmp_path / "c.jpg", left_red_right_blue())
    assert read_capture_time(none) == -1 == decode(none.read_bytes(), "c.jpg", px=8).taken
    assert read_capture_time(tmp_path / "gone.jpg") == -1


@pytest.mark.parametrize(
    "text", ["0000:00:00 00:00:00", "    :  :     :  :  ", "2026:13:01 00:00:00", "1969:01:01 00:00:00", "soon"]
)
def test_a_time_that_is_none_is_no_time(tmp_path, text):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = text
    assert read_capture_time(saved(tmp_path / "a.jpg", left_red_right_blue(), exif=exif)) == -1
    exif[0x0132] = "2027:01:01 00:00:00"
    changed = saved(tmp_path / "b.jpg", left_red_right_blue(), exif=exif)
    assert read_capture_time(changed) == 1_798_761_600_000, "the other time that is there"
