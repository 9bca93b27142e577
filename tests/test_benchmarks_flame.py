"""A flame graph holds a stage's work, under its heading, and nothing that came before it."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from benchmarks import flame
from tests.media import write_video

CHILD = 'process 1:"";process 2:"child";<module> (<string>:1);main (processors/media/child.py:69)'
MOTION = "decode_clips (processors/clip_pass.py:1);MotionMeter.add (processors/motion.py:2)"


def test_stacks_are_gathered_by_stage_without_lines_and_addresses() -> None:
    stacks = "\n".join(
        [
            f"{CHILD};{MOTION};0x7f01 (cv2/cv2.abi3.so);0x7f02 (cv2/cv2.abi3.so) 30",
            f"{CHILD};{MOTION.replace(':2)', ':3)')};0x7f03 (libavcodec-5e6b81c2.so.62.28.102) 10",
            f"{CHILD};decode_clips (processors/clip_pass.py:9) 20",
            "<module> (benchmarks/tasks.py:1);EnrichmentChain.setup (processors/chain.py:5) 500",
            "EnrichmentChain.run (processors/chain.py:7);Sandbox.run (sandbox.py:1) 90",
        ]
    )
    root = flame.graph_of(stacks, flame.ENRICHMENT)
    assert root.samples == 60
    assert {name: box.samples for name, box in root.above.items()} == {"motion": 40, "frames": 20}
    decode = root.above["motion"].above["decode_clips (processors/clip_pass.py)"]
    meter = decode.above["MotionMeter.add (processors/motion.py)"]
    assert {name: box.samples for name, box in meter.above.items()} == {
        "cv2/cv2": 30,
        "libavcodec": 10,
    }


def test_boxes_are_as_wide_as_their_shares() -> None:
    root = flame.Box()
    root.add(["<motion>", "a (x.py)"], 75)
    root.add(["frames"], 25)
    drawing = ElementTree.fromstring(flame.draw({"enrichment": root}))
    space = "{http://www.w3.org/2000/svg}"
    widths = {
        group.findtext(f"{space}title"): float(group.find(f"{space}rect").attrib["width"])  # type: ignore[union-attr]
        for group in drawing.iter(f"{space}g")
    }
    assert widths == {"<motion>: 75.0%": 899.4, "a (x.py): 75.0%": 899.4, "frames: 25.0%": 299.4}


def test_a_task_is_recorded_with_its_decoding_child(tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", (60, 60), size=(640, 360))
    stacks = flame.record({"task": "split", "videos": [str(video)] * 4}, tmp_path)
    root = flame.graph_of(stacks, flame.SPLIT)
    assert root.samples > 10
    assert "decode" in root.above
