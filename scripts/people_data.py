"""Put several data sets in COCO's layout into one, some of them more than once, for training on a mixture.

    python scripts/people_data.py runs/people_data photos:1 coco-mini:6 drawn:1

Each SOURCE:TIMES is a folder in COCO's layout with 17 keypoints, and how often each of its train images comes in an
epoch. Pictures are linked where the file system allows it, else copied.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

ANNOTATIONS = "annotations/person_keypoints_train2017.json"


def merge(out: Path, sources: list[tuple[Path, int]]) -> None:
    """Write `out`/train2017 and its annotations from the train splits of the sources."""
    contents = [json.loads((source / ANNOTATIONS).read_text()) for source, _ in sources]
    category = _category(contents[0])
    for (source, _), content in zip(sources, contents, strict=True):
        if _category(content)["keypoints"] != category["keypoints"]:
            raise SystemExit(f"{source}: other keypoints than {sources[0][0]}; merge data of one keypoint set")
    (out / "train2017").mkdir(parents=True)
    (out / ANNOTATIONS).parent.mkdir()
    merged: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": [category | {"id": 1}]}
    for number, ((source, times), content) in enumerate(zip(sources, contents, strict=True)):
        for time in range(times):
            _add(merged, content, source, out, f"{number}-{time}-")
    (out / ANNOTATIONS).write_text(json.dumps(merged))


def _category(content: dict[str, Any]) -> dict[str, Any]:
    category: dict[str, Any] = next(c for c in content["categories"] if c.get("keypoints"))
    return category


def _add(merged: dict[str, list[Any]], content: dict[str, Any], source: Path, out: Path, prefix: str) -> None:
    people, new_id = merged["annotations"], {}
    for image in content["images"]:
        new_id[image["id"]] = len(merged["images"]) + 1
        name = prefix + Path(image["file_name"]).name
        _link((source / "train2017" / image["file_name"]).resolve(), out / "train2017" / name)
        merged["images"].append(image | {"id": new_id[image["id"]], "file_name": name})
    category_id = _category(content)["id"]
    for person in content["annotations"]:
        if person["category_id"] == category_id:
            people.append(person | {"id": len(people) + 1, "image_id": new_id[person["image_id"]], "category_id": 1})


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def main() -> None:
    """Read the command line and merge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("sources", nargs="+", metavar="SOURCE:TIMES")
    args = parser.parse_args()
    pairs = [text.rpartition(":") for text in args.sources]
    merge(args.out, [(Path(folder), int(times)) for folder, _, times in pairs])


if __name__ == "__main__":
    main()
