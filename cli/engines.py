"""`perception engines`: list, build, sensitivity, check, bench and export."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perception.engines.workshop import FloatLayers


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand and its own subcommands."""
    parser = subparsers.add_parser("engines", help="list, build, check and time engines")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    listing = actions.add_parser("list", help="models, their licences and accuracy, and which engines are built")
    listing.set_defaults(run=_list)

    building = actions.add_parser("build", help="build an engine for this machine")
    _add_model(building)
    _add_choice(building)
    building.add_argument("--if-needed", action="store_true", help="do nothing if a fitting engine can be loaded")
    building.add_argument("--data", help="accuracy is measured on: name or path (default: the shipped clip, for depth)")
    building.add_argument("--data-root", type=Path, help="folder of data sets by name (default: $PERCEPTION_DATA)")
    building.add_argument(
        "--keep", action="append", default=[], metavar="LAYER", help="a layer that int8 leaves in float32"
    )
    building.add_argument("--keep-float", type=int, default=0, metavar="N", help="and the N that int8 harms most")
    building.add_argument(
        "--suppression",
        default="auto",
        help="where a detector's doubles are left out: graph, numpy or, where auto chooses, the faster one (default)",
    )
    building.set_defaults(run=_build)

    comparing = actions.add_parser("sensitivity", help="which layers int8 harms, and which to leave in float32")
    _add_model(comparing)
    comparing.add_argument("--target", default="openvino", help="whose int8 scheme: openvino (default), tensorrt, ...")
    _add_frames(comparing)
    comparing.add_argument("--out", type=Path, default=Path("out/sensitivity"), help="folder for JSON and Markdown")
    comparing.set_defaults(run=_sensitivity)

    checking = actions.add_parser("check", help="name what TensorRT 10.3 (JetPack 6) cannot parse")
    _add_model(checking)
    checking.set_defaults(run=_check)

    timing = actions.add_parser("bench", help="time every target and precision against plain ONNX Runtime in fp32")
    _add_model(timing)
    _add_choice(timing)
    timing.add_argument("--threads", type=int, default=0, help="CPU threads of each engine; 0 (default): all cores")
    timing.set_defaults(run=_bench)

    exporting = actions.add_parser("export", help="write a model as an ONNX file with its config")
    _add_model(exporting)
    exporting.add_argument("file", type=Path, help="the ONNX file to write")
    exporting.set_defaults(run=_export)

    for action in (listing, building):
        action.add_argument("--directory", type=Path, help="of the engines (default: $PERCEPTION_ENGINES or the cache)")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="registered name, weights that training wrote, or an ONNX file")
    parser.add_argument("--size", type=_size, metavar="HxW", help="input size (default: the model's own)")


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", default="auto", help="openvino, onnxruntime, tensorrt, torch or auto (default)")
    parser.add_argument("--precision", default="auto", help="fp32, fp16, bf16, int8 or auto (default)")
    _add_frames(parser)


def _add_frames(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--frames", type=Path, help="folder of images for parity (default: the shipped clip)")
    parser.add_argument("--calibration", type=Path, help="folder of other images for int8 (default: half of --frames)")


def _size(text: str) -> tuple[int, int]:
    height, separator, width = text.partition("x")
    if not (separator and height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write height x width, as in 224x224")
    return int(height), int(width)


def _reporter(clock: Callable[[], float] = time.monotonic) -> Callable[[str], None]:
    start = clock()
    return lambda line: print(f"[{clock() - start:6.1f} s] {line}", flush=True)


def _list(args: argparse.Namespace) -> int:
    from perception.engines.export import registered_models
    from perception.engines.listing import describe

    print(describe(registered_models(), args.directory))
    return 0


def _parts(args: argparse.Namespace) -> list[str]:
    from perception.engines import part_names

    return part_names(args.model, args.size, getattr(args, "directory", None))


def _build(args: argparse.Namespace) -> int:
    layers = _float_layers(args)
    report = _reporter()
    for part in _parts(args):
        if not (args.if_needed and _is_built(args, part, report)):
            _build_part(args, part, layers, report)
    return 0


def _is_built(args: argparse.Namespace, part: str, report: Callable[[str], None]) -> bool:
    from perception.engines import EngineError, load
    from perception.tasks.decoders import FoundDecoder

    try:
        with load(
            args.model, args.target, args.precision, directory=args.directory, size=args.size, part=part
        ) as engine:
            inside = isinstance(engine.config.decoder, FoundDecoder)
            other = {"graph": not inside, "numpy": inside}.get(args.suppression, False)
            name = engine.info["model"]
            if other:
                report(f"{name} was built with another --suppression")
            elif engine.chosen or (args.target, args.precision) != ("auto", "auto"):
                report(f"{name} is built: {engine.info['runtime']} {engine.info['precision']}")
                return True
            else:
                report(f"{name} was built for targets by name; auto has not chosen between them yet")
    except EngineError as error:
        report(str(error))
    return False


def _build_part(args: argparse.Namespace, part: str, layers: FloatLayers, report: Callable[[str], None]) -> None:
    from perception.engines import build
    from perception.evaluation.judge import find_judge  # not before it is known that something is to be built

    path = build(
        args.model,
        args.target,
        args.precision,
        size=args.size,
        directory=args.directory,
        frames=args.frames,
        calibration=args.calibration,
        judge=partial(find_judge, data=args.data, root=args.data_root),
        layers=layers,
        suppression=args.suppression,
        part=part,
        progress=report,
    )
    report(f"engine: {path}")


def _float_layers(args: argparse.Namespace) -> FloatLayers:
    from perception.engines.workshop import FloatLayers

    if args.keep_float < 0:
        raise ValueError(f"--keep-float is {args.keep_float}; accepted: the number of layers, 0 or more")
    if (args.keep or args.keep_float) and args.precision not in ("int8", "auto"):
        raise ValueError(f"--keep and --keep-float are about int8, and --precision is {args.precision}; leave them out")
    return FloatLayers(tuple(args.keep), args.keep_float)


def _sensitivity(args: argparse.Namespace) -> int:
    from perception.engines.runtimes import get_runtime
    from perception.engines.store import write_atomically
    from perception.engines.workshop import make_workshop

    scheme = get_runtime(args.target).quantization()
    for part in _parts(args):
        workshop = make_workshop(args.model, args.size, args.frames, args.calibration, _reporter(), part=part)
        report = workshop.sensitivity(scheme).report(workshop.progress)
        print(report.to_markdown())
        path = args.out / "-".join(filter(None, (workshop.config.name, part, args.target)))
        for suffix, text in ((".json", report.to_json()), (".md", report.to_markdown())):
            write_atomically(Path(f"{path}{suffix}"), text.encode() + b"\n")
        print(f"\nfigures: {path}.json, {path}.md")
    return 0


def _check(args: argparse.Namespace) -> int:
    from perception.engines.source import open_source
    from perception.engines.trt_support import check_precisions

    refused = False
    for part in _parts(args):
        for precision, sentences in check_precisions(open_source(args.model, args.size, part)).items():
            words = "; ".join(sentences) or "TensorRT 10.3 parses every operator"
            print(f"{part and f'{part}, '}{precision}: {words}")
            refused |= bool(sentences)
    return int(refused)


def _bench(args: argparse.Namespace) -> int:
    from perception.engines.bench import bench

    report = _reporter()
    for part in _parts(args):
        choice = args.target, args.precision, args.threads, args.size
        print(bench(args.model, *choice, args.frames, args.calibration, report, part))
    return 0


def _export(args: argparse.Namespace) -> int:
    from perception.engines.graph import to_bytes
    from perception.engines.source import open_source
    from perception.engines.store import write_atomically

    write_atomically(args.file, to_bytes(open_source(args.model, args.size).graph()))
    print(args.file)
    return 0
