"""What every job of the worker reads and where it writes."""

from __future__ import annotations

from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.found import POOL, TRAIN, VALIDATION
from camera_trap_al.config import Config
from camera_trap_al.core.order import ORDER_SEED
from camera_trap_al.core.seeds import seed_from
from camera_trap_al.images import IMAGE_PX
from camera_trap_al.layout import WorkFolder
from camera_trap_al.learn.settings import Tick
from camera_trap_al.reading import ImageReader, open_cache
from camera_trap_al.store import embeddings, generations
from camera_trap_al.store.embeddings import RowArray
from camera_trap_al.store.pixels import PixelCache
from camera_trap_al.work import image_folders


class Job:
    """What a job may read: catalogue and settings; and where it writes: models and embeddings."""

    def __init__(self, folder: WorkFolder, config: Config, name: str, catalog: Catalog, tick: Tick) -> None:
        self.folder, self.config, self.name, self.catalog, self.tick = folder, config, name, catalog, tick
        self.folders = {kind: str(path) for kind, path in image_folders(config).items()}
        self.cache = open_cache(folder, config, catalog)
        self.read = self._reader(config.cache.px, self.cache)

    def _reader(self, px: int, cache: PixelCache | None) -> ImageReader:
        labelled, _ = self.catalog.labelled()
        top = self.catalog.fact("top", [])
        return ImageReader(self.config, self.folders, top, px=px, cache=cache, labelled=labelled)

    def reader_for(self, number: int) -> ImageReader:
        """Return what reads images as model `number` was trained with; from the cache, if that holds images of this size."""
        manifest = generations.read_manifest(generations.folder_of(self.folder.models, number)) or {}
        px = int(manifest.get("px", IMAGE_PX))
        return self.read if px == self.config.cache.px else self._reader(px, None)

    @property
    def catalog_id(self) -> str:
        """Which catalogue the rows are of."""
        return str(self.catalog.fact("catalog_id"))

    def learner(self) -> generations.Generation | None:
        """Return the current learner."""
        return embeddings.current_learner(self.folder.embedding, self.folder.models, self.catalog_id)

    def mark(self, number: int) -> str:
        """Return what shards of model `number` are marked with."""
        return embeddings.made_by(self.folder.models, number, self.catalog_id)

    @property
    def identity(self) -> str:
        """What all seeds come from."""
        return str(self.config.daemon.seed or self.catalog.fact("identity"))

    def seed(self, number: int) -> int:
        """Return the seed of model `number`."""
        return seed_from(self.identity, "model", number)

    def rows_in_order(self) -> RowArray:
        """Return the rows of all readable, present images in the order in which they are embedded."""
        return self.catalog.in_order(seed_from(self.identity, ORDER_SEED), TRAIN, VALIDATION, POOL)
