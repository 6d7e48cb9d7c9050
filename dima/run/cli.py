"""The `dima` command: picks a subcommand, and turns every mistake of a user's into one line and exit code 2.

With DIMA_DEBUG=1 in the environment the whole traceback is shown instead; so it is for a fault in program or plug-in.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence

from hydra.errors import ConfigCompositionException

from dima.run.known_keys import search_folders, with_unlisted_fields
from dima.run.messages import is_user_error, nearest, one_line, own_model_in

_COMMANDS = {
    "train": "learn a world model, and a team's policies inside it",
    "evaluate": "real episodes with a trained policy",
    "collect": "a dataset of real episodes",
    "fit": "a world model learned offline from a dataset",
    "predict": "how far a world model can be trusted, across agent orders",
    "infer": "how well the global state is inferred from observations",
    "export": "a trained policy as one file that plain torch runs",
    "play": "a video of a real episode",
    "check-env": "what, if anything, is wrong with an environment",
    "check-model": "what, if anything, a world model does not keep of the contract",
    "bench": "how fast each stage runs on this machine",
}

_BY_PRESET = ("world_model_preset", "inference_preset", "inference_training_preset")
"""Groups from which `preset=` chooses; another choice would be looked for under another name and be left out."""

_HELP = """dima: model-based multi-agent reinforcement learning with generative world models

usage: dima COMMAND [key=value ...]

commands
{commands}

examples
  dima train                                        HalfCheetah-2x3, sized for this machine
  dima train env=mujoco_task preset=paper seed=1    another task, the paper's settings
  dima evaluate run=runs/.../RUN                    score what was learned
  dima COMMAND --help                               what a command can be told
""".replace("env=mujoco_task", "env=mamujoco/ant-4x2")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code: 0 when what was asked for is there, 2 on a mistake."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command, rest = (given[0], given[1:]) if given else ("--help", [])
    if command in ("-h", "--help", "help"):
        print(_HELP.format(commands="\n".join(f"  {name:<12} {what}" for name, what in _COMMANDS.items())))
        return 0
    try:
        code = _run(command, rest)
        sys.stdout.flush()  # here, where a reader that is gone can be told of
        return code
    except KeyboardInterrupt:
        return 130
    except SystemExit as end:  # Hydra, after --help and the like
        return end.code if isinstance(end.code, int) else 0
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            return 128 + signal.SIGPIPE
        if os.environ.get("DIMA_DEBUG") == "1" or not is_user_error(error):
            if culprit := own_model_in(error):
                words = " ".join(word for word in rest if word.startswith(("world_model", "hydra.searchpath")))
                error.add_note(f"raised in {culprit}; what a model has to keep: dima check-model {words}".rstrip())
            raise
        spelt = [respelt(command, argument) for argument in rest]
        print(f"dima {command}: {one_line(error, command, spelt)}", file=sys.stderr)
        return 2


def _reader_is_gone() -> bool:
    """Whether whatever read standard output (`| head`) has ended; nothing more is written to it then."""
    try:
        print(flush=True)  # a failed write is not always tried again by a flush alone
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _run(command: str, arguments: list[str]) -> int:
    if command not in _COMMANDS:
        raise ValueError(f"unknown command {nearest(command, _COMMANDS)} (commands: {', '.join(_COMMANDS)})")
    module = importlib.import_module(f"dima.run.{command.replace('-', '_')}")
    arguments = [respelt(command, argument) for argument in arguments]
    _refuse_parts_of_presets(arguments)
    for folder in search_folders(arguments):
        if not folder.is_dir():
            raise ValueError(f"hydra.searchpath: there is no folder {folder}")
    arguments = _with_defaults(command, for_plug_ins(arguments))
    sys.argv = [f"dima {command}", *arguments]
    try:
        module.main()
    except ConfigCompositionException:  # nothing has been done yet
        completed = with_unlisted_fields(command, arguments)
        if completed == arguments:
            raise
        sys.argv = [f"dima {command}", *completed]
        module.main()
    return 0


def _refuse_parts_of_presets(arguments: Sequence[str]) -> None:
    for argument in arguments:
        group = argument.lstrip("+~").partition("=")[0].partition("@")[0]
        if group in _BY_PRESET:
            raise ValueError(f"{argument}: {group} is chosen by preset; say preset=NAME")


def respelt(command: str, argument: str) -> str:
    """`policy=...` of `collect` and `play` says who acts; to Hydra, it is the group of settings of `dima train`."""
    says_who = command in ("collect", "play") and argument.startswith("policy=")
    return argument.replace("policy=", "behaviour=", 1) if says_who else argument


def for_plug_ins(arguments: list[str]) -> list[str]:
    """Let `world_model._target_=my.module.Config world_model.depth=3` stand by itself, and so for `env`.

    The values of the group's default are not the plug-in's: `custom.yaml` has none, and the plug-in's own are added.
    """
    for group in ("world_model", "env"):
        if any(argument.startswith(f"{group}._target_=") for argument in arguments):
            keys = {argument.partition("=")[0] for argument in arguments}
            named = f"{group}._target_="
            arguments = [f"++{a}" if a.startswith(f"{group}.") and not a.startswith(named) else a for a in arguments]
            arguments = arguments if group in keys else [f"{group}=custom", *arguments]
    return arguments


def _with_defaults(command: str, arguments: list[str]) -> list[str]:
    """The command line with what this machine suggests: preset=paper for a GPU, unless the user says otherwise."""
    keys = {argument.split("=", 1)[0] for argument in arguments}
    says_so = keys & {"preset", "resume", "compare"} or "device=cpu" in arguments
    if command not in ("train", "bench", "fit") or says_so:
        return arguments
    import torch

    return ["preset=paper", *arguments] if torch.cuda.is_available() else arguments


if __name__ == "__main__":
    sys.exit(main())
