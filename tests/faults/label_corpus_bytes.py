"""Label files by what programs and accidents do to bytes, lines and columns (docs/reliability.md 2.2).

Each entry: what it is, the bytes, the verdict, what becomes of images, the rejections; all written by hand. In images `a`
to `e` are S1/a.JPG to S1/e.JPG, `n` is one never asked for, `r` lies in the root; `=` gives a label, `?` a skip, `!` an
unlabel.
"""

# ruff: noqa: E501 - one case a line
from __future__ import annotations

import codecs
import gzip
import io
import json
import zipfile

Case = tuple[str, bytes | str, str, str, str]

HEADER = "File,RelativePath,Species"
TWO = "a.JPG,S1,deer\r\nb.JPG,S1,fox\r\n"
GOOD = f"{HEADER}\r\n{TWO}"
BOTH = "a=deer|b=fox"
OK, SOME, NOT, CUT = "accepted", "partial", "rejected", "incomplete"
SEMI, TABS, PIPES = (GOOD.replace(",", d) for d in ";\t|")
ACCENTS = f"{HEADER}\r\na.JPG,S1,café\r\nété.JPG,Forêt,fox\r\n"
ACCENTED = "a=café|Forêt/été.JPG=fox"
NOTE = "File,RelativePath,Species,Note\r\n"
BIG = "x" * 1_100_000


def table(*rows: str, header: str = HEADER, end: str = "\r\n") -> str:
    """Return a label file of a header and rows."""
    return end.join([header, *rows]) + end


def workbook() -> bytes:
    """Return a zip archive such as an Excel workbook."""
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as file:
        file.writestr("xl/worksheets/sheet1.xml", "<worksheet/>")
    return buffer.getvalue()


TIMELAPSE = "RootFolder,File,RelativePath,DateTime,DeleteFlag,Selected,Species,Count,Note,Dark"
FULL = (
    "RootFolder,File,RelativePath,DateTime,DeleteFlag,ImageQuality,Selected,Species,Count,Sex,Age,Behaviour,Weather,"
    "Observer,Confirmed,Prediction,Confidence,Temperature,Moon,Comment"
)
LEVELS = "Root,Station,Deployment,RootFolder,File,RelativePath,DateTime,Selected,Species"
FORMS: list[Case] = [
    ("utf-8", GOOD, OK, BOTH, ""),
    ("utf-8 with a mark (Excel 'CSV UTF-8')", codecs.BOM_UTF8 + GOOD.encode(), OK, BOTH, ""),
    ("utf-8 with a mark, semicolons (Excel, German)", codecs.BOM_UTF8 + SEMI.encode(), OK, BOTH, ""),
    ("utf-16 little endian", codecs.BOM_UTF16_LE + GOOD.encode("utf-16-le"), OK, BOTH, ""),
    ("utf-16 big endian", codecs.BOM_UTF16_BE + GOOD.encode("utf-16-be"), OK, BOTH, ""),
    ("utf-16 with tabs (Excel 'Unicode text')", TABS.encode("utf-16"), OK, BOTH, ""),
    ("utf-16 with semicolons and accents", ACCENTS.replace(",", ";").encode("utf-16"), OK, ACCENTED, ""),
    ("utf-16 with a sep line", ("sep=;\r\n" + SEMI).encode("utf-16"), OK, BOTH, ""),
    ("utf-8 with accents", ACCENTS, OK, ACCENTED, ""),
    ("utf-8 with a mark and accents", codecs.BOM_UTF8 + ACCENTS.encode(), OK, ACCENTED, ""),
    ("Windows-1252 (Excel 'CSV', French)", ACCENTS.encode("cp1252"), OK, ACCENTED, ""),
    ("Windows-1252 with semicolons", ACCENTS.replace(",", ";").encode("cp1252"), OK, ACCENTED, ""),
    ("Windows-1252 in another column only", (NOTE + "a.JPG,S1,deer,près\r\n").encode("cp1252"), OK, "a=deer", ""),
    ("Windows-1252 far down", (GOOD + "c.JPG,S1,\r\n" * 9000 + "c.JPG,S1,café\r\n").encode("cp1252"), OK, BOTH + "|c=café", ""),
    ("Mac Roman accents are other letters", ACCENTS.encode("mac_roman"), NOT, "", "2:unknown_species 3:unknown_image"),
    ("text with signs in it", GOOD.replace("deer", "鹿"), OK, "a=鹿|b=fox", ""),
    ("signs in path and label", table("写真.JPG,鹿,鹿"), OK, "鹿/写真.JPG=鹿", ""),
    ("utf-16 without a mark", GOOD.encode("utf-16-le"), NOT, "", "0:wrong_encoding"),
    ("utf-16 big endian without a mark", GOOD.encode("utf-16-be"), NOT, "", "0:wrong_encoding"),
    ("utf-32", GOOD.encode("utf-32"), NOT, "", "0:wrong_encoding"),
    ("utf-32 big endian", codecs.BOM_UTF32_BE + GOOD.encode("utf-32-be"), NOT, "", "0:wrong_encoding"),
    ("utf-32 without a mark", GOOD.encode("utf-32-le"), NOT, "", "0:wrong_encoding"),
    ("utf-7", table("a.JPG,S1,caf+AOk-", "b.JPG,S1,fox"), SOME, "b=fox", "2:unknown_species"),
    ("utf-16, a byte lost", GOOD.encode("utf-16")[:-1], CUT, "", "0:incomplete"),
    ("utf-16, ends in NUL", GOOD.encode("utf-16") + bytes(64), CUT, "", "0:incomplete"),
    ("NULs at the end (copy to a share)", GOOD.encode() + bytes(4096), CUT, "", "0:incomplete"),
    ("NULs only", bytes(8192), CUT, "", "0:incomplete"),
    ("a copy whose first half is there, then NULs", GOOD[:30].encode() + bytes(30), CUT, "", "0:incomplete"),
    ("half a letter at the end", (table() + "a.JPG,Forêt,é").encode()[:-1], CUT, "", "0:incomplete"),
    ("nothing", b"", NOT, "", "0:empty_file"),
    ("a mark alone", codecs.BOM_UTF8, NOT, "", "0:empty_file"),
    ("blank lines alone", b"\r\n\r\n  \r\n", NOT, "", "0:empty_file"),
    ("bare delimiters alone", b",,,\r\n,,,\r\n", NOT, "", "0:empty_file"),
    ("Ctrl-Z alone", b"\x1a", NOT, "", "0:empty_file"),
    ("xlsx called csv", workbook(), NOT, "", "0:not_text"),
    ("xls called csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(range(256)) * 4, NOT, "", "0:not_text"),
    ("gzip", gzip.compress(GOOD.encode()), NOT, "", "0:not_text"),
    ("JPEG", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01" + bytes(range(255, 0, -1)), NOT, "", "0:not_text"),
    ("PNG", b"\x89PNG\r\n\x1a\n" + bytes(range(1, 256)), NOT, "", "0:not_text"),
    ("PDF", b"%PDF-1.4\n1 0 obj\n", NOT, "", "0:not_text"),
    ("SQLite (a .ddb called csv)", b"SQLite format 3\x00\x10\x00\x01\x01" + bytes(range(256)), NOT, "", "0:not_text"),
    ("a web page", "<!DOCTYPE html>\n<html><body><table></table></body></html>\n", NOT, "", "0:not_text"),
    ("an Excel web page", "<html xmlns:x='urn:x'><table><tr><td>File</td></tr></table></html>", NOT, "", "0:not_text"),
    ("XML", "<?xml version='1.0'?>\n<Workbook/>\n", NOT, "", "0:not_text"),
    ("JSON object", json.dumps({"images": [{"file": "S1/a.JPG"}]}), NOT, "", "0:not_text"),
    ("JSON list", json.dumps([{"File": "a.JPG", "Species": "deer"}], indent=1), NOT, "", "0:not_text"),
    ("RTF", "{\\rtf1\\ansi File,RelativePath,Species}", NOT, "", "0:not_text"),
    ("a tar archive", b"labels.csv".ljust(100, b"\0") + b"0000644\0" + bytes(404) + GOOD.encode(), NOT, "", "0:not_text"),
    ("random bytes", bytes((i * 89 + 7) % 251 + 1 for i in range(3000)), NOT, "", "0:not_text"),
    ("prose", "Dear all,\r\nplease find the labels attached.\r\n", NOT, "", "0:missing_column"),
    ("a mark twice", codecs.BOM_UTF8 * 2 + GOOD.encode(), OK, BOTH, ""),
    ("a mark inside, two files joined", GOOD + "\ufeff" + table("c.JPG,S1,deer"), OK, BOTH + "|c=deer", ""),
]  # fmt: skip
LINES: list[Case] = [
    ("LF", GOOD.replace("\r\n", "\n"), OK, BOTH, ""),
    ("CR only (old Mac)", GOOD.replace("\r\n", "\r"), OK, BOTH, ""),
    ("CR CR LF", GOOD.replace("\r\n", "\r\r\n"), OK, BOTH, ""),
    ("mixed, LF first", GOOD.replace("\r\n", "\n", 1), OK, BOTH, ""),
    ("mixed, CRLF first", GOOD.replace("\r\n", "\n").replace("\n", "\r\n", 1), OK, BOTH, ""),
    ("no line end at the end", GOOD.rstrip(), OK, BOTH, ""),
    ("a label cut at the end of the file", GOOD.rstrip()[:-1], SOME, "a=deer", "3:unknown_species"),
    ("a row cut at the end of the file", GOOD + "c.JPG,S", SOME, BOTH, "4:short_row"),
    ("blank lines between", GOOD.replace("\r\n", "\r\n\r\n"), OK, BOTH, ""),
    ("lines of blanks and tabs", GOOD.replace("\r\n", "\r\n \t \r\n"), OK, BOTH, ""),
    ("blank lines before the header", "\r\n\n" + GOOD, OK, BOTH, ""),
    ("rows of bare delimiters (Excel)", GOOD + ",,\r\n" * 50, OK, BOTH, ""),
    ("rows of more bare delimiters", GOOD + ",,,,,,,\r\n,\r\n", OK, BOTH, ""),
    ("bare delimiters before the header", ",,\r\n" + GOOD, OK, BOTH, ""),
    ("rows of quoted nothing", GOOD + '"","",""\r\n', OK, BOTH, ""),
    ("Ctrl-Z at the end (DOS)", GOOD + "\x1a", OK, BOTH, ""),
    ("Ctrl-Z on its own line", GOOD + "\x1a\r\n", OK, BOTH, ""),
    ("Ctrl-Z for the last line end", GOOD.rstrip() + "\x1a", OK, BOTH, ""),
    ("NUL in the middle of a path", table("a\0.JPG,S1,deer", "b.JPG,S1,fox"), SOME, "b=fox", "2:control_character"),
    ("NUL in a label", table("a.JPG,S1,de\0er", "b.JPG,S1,fox"), SOME, "b=fox", "2:control_character"),
    ("NUL in a note", NOTE + "a.JPG,S1,deer,x\0y\r\n", OK, "a=deer", ""),
    ("bell in a folder", table("a.JPG,S\x071,deer", "b.JPG,S1,fox"), SOME, "b=fox", "2:control_character"),
    ("escape in a label", table("a.JPG,S1,\x1b[1mdeer", "b.JPG,S1,fox"), SOME, "b=fox", "2:control_character"),
    ("next line (U+0085) in a label", table("a.JPG,S1,de\x85er", "b.JPG,S1,fox"), SOME, "b=fox", "2:control_character"),
    ("a tab in a label", table("a.JPG,S1,Wild\tboar", "b.JPG,S1,fox"), SOME, "b=fox", "2:control_character"),
    ("a tab around a label", table("a.JPG,S1,\tdeer\t", "b.JPG,S1,fox"), OK, BOTH, ""),
    ("a line break in a quoted label", table('a.JPG,S1,"de\r\ner"', "b.JPG,S1,fox"), SOME, "b=fox", "2:control_character"),
    ("a line break after a quoted label", table('a.JPG,S1,"deer\n"', "b.JPG,S1,fox"), OK, BOTH, ""),
    ("a line break in a quoted path", table('"a\n.JPG",S1,deer', "b.JPG,S1,fox"), SOME, "b=fox", "2:control_character"),
    ("a label over a megabyte", table(f"a.JPG,S1,{BIG}", "b.JPG,S1,fox"), SOME, "b=fox", "2:long_cell"),
    ("a note over a megabyte", NOTE + f"a.JPG,S1,deer,{BIG}\r\nb.JPG,S1,fox,\r\n", SOME, "b=fox", "2:long_cell"),
    ("a quoted note over a megabyte", NOTE + f'a.JPG,S1,deer,"{BIG}"\r\nb.JPG,S1,fox,\r\n', SOME, "b=fox", "2:long_cell"),
    ("a long note that is still allowed", NOTE + f"a.JPG,S1,deer,{'x' * 900_000}\r\n", OK, "a=deer", ""),
    ("a line of eight megabytes", NOTE + f"a.JPG,S1,deer,{'x' * 8_000_000}\r\n", NOT, "", "0:long_line"),
    ("one line without end", "x" * 5_000_000, NOT, "", "0:long_line"),
]  # fmt: skip
COLUMNS: list[Case] = [
    ("semicolons", SEMI, OK, BOTH, ""),
    ("tabs", TABS, OK, BOTH, ""),
    ("sep=; and semicolons", "sep=;\r\n" + SEMI, OK, BOTH, ""),
    ("sep=, and commas", "sep=,\r\n" + GOOD, OK, BOTH, ""),
    ("sep= tab", "sep=\t\r\n" + TABS, OK, BOTH, ""),
    ("SEP=; in quotes", '"SEP=;"\r\n' + SEMI, OK, BOTH, ""),
    ("sep=; after a mark", "\ufeffsep=;\r\n" + SEMI, OK, BOTH, ""),
    ("sep=; with LF", "sep=;\n" + SEMI.replace("\r\n", "\n"), OK, BOTH, ""),
    ("sep=| and pipes", "sep=|\r\n" + PIPES, NOT, "", "0:unknown_delimiter"),
    ("sep=; alone", "sep=;\r\n", NOT, "", "0:empty_file"),
    ("sep=; but commas", "sep=;\r\n" + GOOD, NOT, "", "0:unknown_delimiter"),
    ("pipes", PIPES, NOT, "", "0:unknown_delimiter"),
    ("colons", GOOD.replace(",", ":"), NOT, "", "0:unknown_delimiter"),
    ("blanks (R write.table)", '"File" "RelativePath" "Species"\n"1" "a.JPG" "S1" "deer"\n', NOT, "", "0:unknown_delimiter"),
    ("fixed width", "File      RelativePath  Species\na.JPG     S1            deer\n", NOT, "", "0:unknown_delimiter"),
    ("decimal commas under semicolons", "File;RelativePath;Species;Score\r\na.JPG;S1;deer;0,93\r\n", OK, "a=deer", ""),
    ("commas in cells under semicolons", "File;RelativePath;Note;Species\r\na.JPG;S1;one, two, three;deer\r\n", OK, "a=deer", ""),
    ("semicolons in cells under commas", "File,RelativePath,Note,Species\r\na.JPG,S1,one; two; three; four;,deer\r\n", OK, "a=deer", ""),
    ("semicolon header, comma rows", "File;RelativePath;Species\r\n" + TWO, NOT, "", "2:short_row 3:short_row"),
    ("comma header, semicolon rows", HEADER + "\r\na.JPG;S1;deer\r\nb.JPG,S1,fox\r\n", SOME, "b=fox", "2:short_row"),
    ("every cell quoted (R, LibreOffice)", '"File","RelativePath","Species"\n"a.JPG","S1","deer"\n"b.JPG","S1","fox"\n', OK, BOTH, ""),
    ("R write.csv, with row names", '"","File","RelativePath","Species"\n"1","a.JPG","S1","deer"\n"2","b.JPG","S1","fox"\n', OK, BOTH, ""),
    ("R write.csv2", '"";"File";"RelativePath";"Species"\n"1";"a.JPG";"S1";"deer"\n"2";"b.JPG";"S1";"fox"\n', OK, BOTH, ""),
    ("R missing values are words", '"File","RelativePath","Species"\n"a.JPG","S1",NA\n', OK, "a=NA", ""),
    ("R write.table, header one short", '"File","RelativePath","Species"\n"1","a.JPG","S1","deer"\n', NOT, "", "2:extra_cells"),
    ("pandas, with index", ",File,RelativePath,Species\n0,a.JPG,S1,deer\n1,b.JPG,S1,fox\n", OK, BOTH, ""),
    ("pandas, index read once more", "Unnamed: 0,File,RelativePath,Species\n0,a.JPG,S1,deer\n1,b.JPG,S1,fox\n", OK, BOTH, ""),
    ("Numbers, table name as first line", "Table 1\r\n" + GOOD, NOT, "", "0:missing_column"),
    ("empty columns at the end of all rows (Excel)", GOOD.replace("\r\n", ",,\r\n"), OK, BOTH, ""),
    ("empty columns at the end of the header only", GOOD.replace(HEADER, HEADER + ",,"), OK, BOTH, ""),
    ("empty columns at the end of rows only", GOOD.replace("deer", "deer,,").replace("fox", "fox,"), OK, BOTH, ""),
    ("blank extra cells", GOOD.replace("deer", "deer, ,\t"), OK, BOTH, ""),
    ("extra cells that say something", GOOD.replace("deer", "deer,see note"), SOME, "b=fox", "2:extra_cells"),
    ("an unquoted comma in a note", NOTE + "a.JPG,S1,deer,young, male\r\nb.JPG,S1,fox,\r\n", SOME, "b=fox", "2:extra_cells"),
    ("too few cells", GOOD.replace("S1,deer", "S1"), SOME, "b=fox", "2:short_row"),
    ("a trailing empty note left out", NOTE + "a.JPG,S1,deer\r\nb.JPG,S1,fox,\r\n", SOME, "b=fox", "2:short_row"),
    ("one word on a line", GOOD + "end\r\n", SOME, BOTH, "4:short_row"),
    ("header in capitals", GOOD.replace(HEADER, HEADER.upper()), OK, BOTH, ""),
    ("header in small letters", GOOD.replace(HEADER, HEADER.lower()), OK, BOTH, ""),
    ("header with blanks", GOOD.replace(HEADER, " File , RelativePath,Species\u00a0"), OK, BOTH, ""),
    ("header quoted with blanks", GOOD.replace(HEADER, '"File ",RelativePath,"species"'), OK, BOTH, ""),
    ("columns in another order", table("deer,S1,a.JPG", "fox,S1,b.JPG", header="Species,RelativePath,File"), OK, BOTH, ""),
    ("a column without a name", table("a.JPG,,S1,deer", header="File,,RelativePath,Species"), OK, "a=deer", ""),
    ("other columns named twice", table("a.JPG,x,S1,y,deer", header="File,Note,RelativePath,Note,Species"), OK, "a=deer", ""),
    ("no File", table("a.JPG,S1,deer", header="Image,RelativePath,Species"), NOT, "", "0:missing_column"),
    ("no RelativePath", table("a.JPG,deer", header="File,Species"), NOT, "", "0:missing_column"),
    ("no Species", table("a.JPG,S1,deer", header="File,RelativePath,Label"), NOT, "", "0:missing_column"),
    ("misspelt header", table("a.JPG,S1,deer", header="File,Relative Path,Species"), NOT, "", "0:missing_column"),
    ("header in another language", table("a.JPG;S1;deer", header="Datei;Pfad;Art"), NOT, "", "0:missing_column"),
    ("no header", TWO, NOT, "", "0:missing_column"),
    ("no header, one row", "a.JPG,S1,deer\r\n", NOT, "", "0:missing_column"),
    ("the selector itself", table("a.JPG,S1,true", "b.JPG,S1,false", header="File,RelativePath,Selected"), NOT, "", "0:selector"),
    ("header alone", table(), OK, "", ""),
    ("header alone, no line end", HEADER, OK, "", ""),
    ("header alone with a mark", codecs.BOM_UTF8 + HEADER.encode(), OK, "", ""),
    ("all labels blank", table("a.JPG,S1,", "b.JPG,S1,  "), OK, "", ""),
    ("header repeated inside", GOOD + GOOD.replace("a.JPG", "c.JPG"), OK, BOTH + "|c=deer", ""),
    ("header repeated in other case", GOOD + "FILE,relativepath,SPECIES\r\n", OK, BOTH, ""),
    ("Species twice, agreeing", table("a.JPG,S1,deer,deer", header=HEADER + ",Species"), OK, "a=deer", ""),
    ("Species twice, agreeing but for blanks", table("a.JPG,S1,deer, deer ", header=HEADER + ",species"), OK, "a=deer", ""),
    ("Species twice, not agreeing", table("a.JPG,S1,deer,deer", "b.JPG,S1,fox,deer", header=HEADER + ",Species"), NOT, "", "0:double_column"),
    ("Species twice, one blank", table("a.JPG,S1,deer,", header=HEADER + ",Species"), NOT, "", "0:double_column"),
    ("File twice, not agreeing", table("a.JPG,S1,deer,b.JPG", header=HEADER + ",FILE"), NOT, "", "0:double_column"),
    ("RelativePath twice, agreeing", table("a.JPG,S1,deer,S1", header=HEADER + ",RelativePath"), OK, "a=deer", ""),
    ("a header repeated under double columns", table("a.JPG,S1,deer,deer", HEADER + ",Species", header=HEADER + ",SPECIES"), OK, "a=deer", ""),
    ("a plain Timelapse export", table("Root,a.JPG,S1, 2024-09-17 18:44:56,false,true,deer,1,,false", header=TIMELAPSE), OK, "a=deer", ""),
    ("a Timelapse export with notes", table('Root,a.JPG,S1,2024-09-17 18:44:56,false,true,deer,1,"young, ""red""\r\n\r\nby the pond",false', header=TIMELAPSE), OK, "a=deer", ""),
    ("a Timelapse export of twenty columns", table(",".join(["Root", "a.JPG", "S1", " 2024-09-17 18:44:56", "false", "Ok", "true", "deer", "2", "m", "ad", '"eats,walks"', "sun", "NN", "false", "fox", "0.5", "-3", "", "x"]), header=FULL), OK, "a=deer", ""),
    ("Timelapse 2.2", table("a.JPG,S1,root,17-Sep-2024,18:44:56,Ok,false,deer", header="File,RelativePath,Folder,Date,Time,ImageQuality,DeleteFlag,Species"), OK, "a=deer", ""),
    ("folder levels, all there", table(",S1,S1\\D2,Root,a.JPG,S1\\D2,2024-09-17,true,deer", header=LEVELS), OK, "S1/D2/a.JPG=deer", ""),
    ("folder levels, one left out", table(",S1,Root,a.JPG,S1,2024-09-17,true,deer", header=LEVELS), OK, "a=deer", ""),
    ("folder levels, two left out", table(",Root,r.JPG,,2024-09-17,true,deer", header=LEVELS), OK, "r=deer", ""),
    ("folder levels, the end lost", table(",S1,S1\\D2,Root,a.JPG,S1\\D2,2024-09-17,true", header=LEVELS), NOT, "", "2:short_row"),
    ("folder levels without RootFolder", table(",S1,a.JPG,S1,deer", header="Root,Station,Deployment,File,RelativePath,Species"), OK, "a=deer", ""),
    ("folder levels, image not known", table(",S1,Root,z.JPG,S1,2024-09-17,true,deer", header=LEVELS), NOT, "", "2:short_row"),
    ("a stray quote inside a note", NOTE + 'a.JPG,S1,deer,5" tall\r\nb.JPG,S1,fox,\r\n', OK, BOTH, ""),
    ("two stray quotes inside notes", NOTE + 'a.JPG,S1,deer,5" tall\r\nb.JPG,S1,fox,6" tall\r\n', OK, BOTH, ""),
    ("a stray quote that opens a note", NOTE + 'a.JPG,S1,deer,"tall\r\nb.JPG,S1,fox,7" tall\r\n', OK, BOTH, ""),
    ("words after a closing quote", NOTE + 'a.JPG,S1,deer,"Pond" north\r\nb.JPG,S1,fox,\r\n', OK, BOTH, ""),
    ("a blank before a quote", table('a.JPG,S1, "deer"', "b.JPG,S1,fox"), SOME, "b=fox", "2:unknown_species"),
    ("a quote that never closes", GOOD + 'c.JPG,S1,"deer\r\n', CUT, "", "0:incomplete"),
    ("a quote open in the last cell", GOOD + 'c.JPG,S1,"de', CUT, "", "0:incomplete"),
    ("apostrophes for quotes", table("'a.JPG','S1','deer'", "b.JPG,S1,fox"), SOME, "b=fox", "2:unknown_image"),
    ("typographic quotes", table("“a.JPG”,“S1”,“deer”", "b.JPG,S1,fox"), SOME, "b=fox", "2:unknown_image"),
    ("quoted delimiters in a path", table('"x,y.JPG",semi;colon,deer'), OK, "semi;colon/x,y.JPG=deer", ""),
    ("doubled quotes in a note", NOTE + 'a.JPG,S1,deer,"say ""cheese"""\r\n', OK, "a=deer", ""),
    ("a line of a comment", "# exported on Monday\r\n" + GOOD, NOT, "", "0:missing_column"),
    ("a hundred columns", table("a.JPG,S1,deer" + ",x" * 97, header=HEADER + "".join(f",c{i}" for i in range(97))), OK, "a=deer", ""),
    ("ten thousand cells in one row", table("a.JPG,S1,deer" + ",x" * 10_000, "b.JPG,S1,fox"), SOME, "b=fox", "2:extra_cells"),
]  # fmt: skip
