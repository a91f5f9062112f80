"""`perception eval`: accuracy, latency and size of engines, through the code that the node runs."""

from __future__ import annotations

import argparse
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perception.engines import Engine
    from perception.evaluation.comparison import Cost
    from perception.evaluation.contenders import Contender
    from perception.evaluation.frames import Dataset
    from perception.evaluation.looks import Look


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("eval", help="measure engines on a data set whose truth is known, side by side")
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="registered name, weights that training wrote, or an ONNX file"
    )
    parser.add_argument(
        "--engine",
        nargs="+",
        action="extend",
        default=[],
        metavar="TARGET[:PRECISION]",
        help="engines to compare, built where missing; all: every one that this machine has (default: auto)",
    )
    parser.add_argument("--precision", default="auto", help="of the engines that name none (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of each engine; 0 (default): all cores")
    parser.add_argument(
        "--frames",
        type=Path,
        help="folder of images for engines that are built (default: the shipped clip)",
    )
    data = parser.add_argument_group("data")
    data.add_argument("--data", required=True, help="path, or nyu, clip, rooms[:SEED[:FRAMES]], composed, coco, ...")
    data.add_argument("--data-root", type=Path, help="where names lie (default: $PERCEPTION_DATA or ../shared/data)")
    data.add_argument("--split", default="eval", help="split of the data set, where it has any (default: %(default)s)")
    data.add_argument("--splits", type=Path, help="splits.mat, or a text file of image numbers, of NYU's official .mat")
    data.add_argument("--limit", type=int, help="only the first so many samples")
    dark = parser.add_argument_group(
        "low light", "what models see in the dark, and what an enhancement gives them back"
    )
    dark.add_argument(
        "--darken", nargs="+", type=float, default=[], metavar="SHARE", help="of the light that is left, as in 0.1 0.02"
    )
    dark.add_argument("--enhance", nargs="+", default=[], metavar="MODEL", help="enhancements to put before the models")
    parser.add_argument("--out", type=Path, default=Path("out/eval"), help="folder for results (default: %(default)s)")
    parser.add_argument(
        "--readme", type=Path, help="file whose block <!-- results TASK DATA -->, or <!-- results TASK -->, gets it"
    )
    parser.set_defaults(run=run, more=_add_task_arguments)


def _add_task_arguments(parser: argparse.ArgumentParser) -> None:
    """What belongs to one task is told by its file."""
    from perception.evaluation.assessment import all_assessments
    from perception.evaluation.classes import add_class_arguments

    add_class_arguments(parser.add_argument_group("tasks with classes"))
    for name, assessment in all_assessments().items():
        assessment.add_arguments(parser.add_argument_group(name))


def run(args: argparse.Namespace) -> int:
    from perception.evaluation.assessment import find_assessment
    from perception.evaluation.comparison import Comparison, slug
    from perception.evaluation.contenders import contenders
    from perception.evaluation.report import failures, markdown, readme_block, replace_block, write_report

    chosen = contenders(args.models, args.engine, args.precision)
    with ExitStack() as stack:
        dataset, looks = _data(args, chosen, stack)
        count = len(dataset) if args.limit is None else min(args.limit, len(dataset))
        if count < 1:
            raise ValueError(f"nothing to measure: {dataset.name} has {len(dataset)} samples, --limit is {args.limit}")
        if args.readme:
            replace_block(args.readme.read_text(), dataset.task, args.data, "")  # better refused now than after an hour
        assessment = find_assessment(dataset.task).from_arguments(args)
        folder = args.out / slug(dataset.name)
        command = shlex.join(["perception", *sys.argv[1:]])
        comparison = Comparison(dataset, count, assessment, folder, args.threads, command, _say, args.frames)
        costs = {model: _cost(model) for model in args.models}
        measured = [comparison.measure(one, costs[one.model], look) for one in chosen for look in looks]
        if any(entry.rows for entry in measured):
            comparison.measure_floor()
    report = comparison.report()
    paths = write_report(report, folder)
    print(markdown(report))
    for text in dict.fromkeys(failures(entry.public()) for entry in measured if entry.rows):
        print(text or f"all {count} samples were measured")
    print(f"report: {', '.join(map(str, paths))}")
    if args.readme:
        text = replace_block(args.readme.read_text(), dataset.task, args.data, readme_block(report))
        args.readme.write_text(text)
        print(f"table: {args.readme}")
    if not any(entry.rows for entry in measured):
        raise ValueError(f"no engine could be measured: {'; '.join(entry.problem for entry in measured)}")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _data(args: argparse.Namespace, chosen: list[Contender], stack: ExitStack) -> tuple[Dataset[Any], list[Look]]:
    """The data set, and what of it the models see; `stack` keeps the engines that this takes.

    Raises:
        ValueError: no such data set, one that tells nothing of several models at once, or an enhancement that is none.
        EngineError: the engine whose answers count as true cannot be had.
    """
    from perception.engines import EngineError
    from perception.evaluation.assessment import find_assessment
    from perception.evaluation.contenders import Contender, obtain, short_name
    from perception.evaluation.datasets import data_root, find_dataset
    from perception.evaluation.looks import Answered, find_looks
    from perception.evaluation.pairs import PairDataset

    def engine(contender: Contender) -> Engine:
        return stack.enter_context(obtain(contender, args.out / "engines", args.threads, _say, args.frames))

    task = _task(args.models[0])
    dataset = find_dataset(args.data, data_root(args.data_root), args.split, args.splits, task)
    if isinstance(dataset, PairDataset) and task and task != dataset.task:
        if len(args.models) > 1:
            raise ValueError(
                f"{dataset.name} has pairs of images, of which each model sees its own truth; name one model"
            )
        dataset = Answered(dataset, find_assessment(task).from_arguments(args), engine(chosen[0]))
    enhancers: dict[str, Engine | str] = {}
    taken: dict[str, str] = {}
    for model in args.enhance:
        name = short_name(model, taken)
        try:
            enhancers[name] = found = engine(Contender(model))
        except EngineError as error:  # the others are worth measuring
            enhancers[name] = str(error)
            continue
        if found.config.task != "enhancement":
            raise ValueError(f"{model} is for {found.config.task}; --enhance takes models for enhancement, as ugdc")
    return dataset, find_looks(dataset, args.darken, enhancers)


def _task(model: str) -> str | None:
    """What a model is for; None where that cannot be told, which measuring it will say."""
    from perception.engines import EngineError
    from perception.engines.store import Record, Store

    try:
        from perception.engines.source import open_source

        return open_source(model).config.task
    except ImportError:  # as on a robot, which has engines
        name = str(Path(model).resolve()) if Path(model).is_file() else model
        built = (record for record in Store().records().values() if isinstance(record, Record))
        return next((record.config.task for record in built if record.model == name), None)
    except EngineError:
        return None


def _cost(model: str) -> Cost | None:
    """Parameters and multiply-accumulates; None where this machine has not what counts them, as on a robot, and where
    they cannot be counted, since accuracy is worth as much without."""
    from perception.engines.source import is_onnx, onnx_file
    from perception.evaluation.cost import graph_cost

    try:
        if is_onnx(model):
            return graph_cost(onnx_file(Path(model)))
        from perception.models import count_macs, count_parameters, create_model, model_config

        definition, config = create_model(model, pretrained=False), model_config(model)
        return count_parameters(definition), count_macs(definition, config.input_size, config.more_inputs)
    except ImportError:
        return None
    except ValueError as error:
        print(f"no GMAC and parameters: {error}", flush=True)
        return None
