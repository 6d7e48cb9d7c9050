"""MAMuJoCo: one simulated body, its joints divided among agents. On top of gymnasium-robotics' `mamujoco_v1`.

Adds the partitions of DIMA's tables that package lacks (as joint lists in configs/env/mamujoco), a fully observed mode,
and names that carry versions: the same seed gives other returns on another MuJoCo.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.metadata
import warnings
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from envs.mamujoco_env import MamujocoEnv
from envs.offscreen import choose_gl
from envs.pettingzoo import ObsMode, check_obs_settings
from worldmodel.config import Config, ConfigError

if TYPE_CHECKING:
    from gymnasium_robotics.envs.multiagent_mujoco import MultiAgentMujocoEnv

Scenario = Literal[
    "Ant",
    "CoupledHalfCheetah",
    "HalfCheetah",
    "Hopper",
    "Humanoid",
    "HumanoidStandup",
    "ManySegmentAnt",
    "ManySegmentSwimmer",
    "Pusher",
    "Reacher",
    "Swimmer",
    "Walker2d",
]


@dataclasses.dataclass(frozen=True)
class MamujocoConfig(Config):
    """One MAMuJoCo task. State: the raw observation of the single-agent Gymnasium environment."""

    scenario: Scenario
    """The body."""
    partition: str
    """How its joints are divided among agents, e.g. `2x3`: two agents with three joints each."""
    joints: tuple[tuple[str, ...], ...] | None
    """The joints of each agent, by name and in the order of its actions; null: as gymnasium-robotics lists `partition`.

    Each agent then truly drives the joints of its list. HARL, on which the published code builds, keeps such lists too
    but ignores them and gives agents consecutive actuators; write those here to repeat that."""
    obs_mode: ObsMode
    """`full`: the state for every agent, as in the published results; `local`: own and neighbouring joints."""
    agent_obsk: int
    """Joints up to this distance are observed; only with `obs_mode=local`."""
    standardize_obs: bool
    """Standardise each agent's vector by its own mean and deviation (published code); only with `obs_mode=full`."""
    episode_steps: int
    """Env steps after which an episode is truncated."""
    contact_forces: bool
    """False (Ant only): leave contact forces out of state, observation and reward; in Ant-v2 they were always zero."""
    render_width: int
    """Pixels."""
    render_height: int
    """Pixels."""
    seeing_agents: tuple[int, ...] | None = None
    """Agents, by number from 1, that observe velocities and everything about the root; null: all. The others observe
    the positions of their joints only. Needs `obs_mode=local` (with a default, so that older runs can be read)."""
    observe_velocities: bool = True
    """False: no agent observes a velocity, and only how observations change tells of them. Needs `obs_mode=local`."""

    def validate(self) -> None:
        """Refuse options that the body does not have."""
        check_obs_settings(self)
        self.require(self.agent_obsk >= 0, "agent_obsk", "at least 0")
        self.require(self.contact_forces or self.scenario == "Ant", "contact_forces", "true for any body but Ant")
        self.require(self.render_width >= 1, "render_width", "at least 1 pixel")
        self.require(self.render_height >= 1, "render_height", "at least 1 pixel")
        seeing = self.seeing_agents
        self.require(seeing is None or self.obs_mode == "local", "seeing_agents", "null with obs_mode=full")
        self.require(seeing is None or min(seeing, default=1) >= 1, "seeing_agents", "null or agents' numbers from 1")
        local = self.obs_mode == "local"
        self.require(local or self.observe_velocities, "observe_velocities", "true with obs_mode=full")

    @property
    def env_id(self) -> str:
        """The name in results, e.g. `mamujoco/halfcheetah-2x3`, and what is hidden: `-partial`, `-positions`, both."""
        hidden = "" if self.seeing_agents is None else "-partial"
        hidden += "" if self.observe_velocities else "-positions"
        return f"mamujoco/{self.scenario.lower()}-{self.partition.replace('|', '-')}{hidden}"

    def build(self) -> MamujocoEnv:
        """Load the body; raises `ConfigError` for an unknown partition or joint."""
        # Agents that see the whole state need no local observation: not building one saves time at every step.
        env = make_parallel_env(self, with_observations=self.obs_mode == "local")
        body = env.single_agent_env.spec
        return MamujocoEnv(
            env,
            env_id=self.env_id,
            episode_steps=self.episode_steps,
            obs_mode=self.obs_mode,
            standardize_obs=self.standardize_obs,
            versions=(
                ("mujoco", importlib.metadata.version("mujoco")),
                ("gymnasium-robotics", importlib.metadata.version("gymnasium-robotics")),
                ("body", self.scenario if body is None else body.id),
            ),
            render=functools.partial(render_offscreen, env),
            shown=shown_entries(env, self.seeing_agents, self.observe_velocities),
        )


def make_parallel_env(config: MamujocoConfig, *, with_observations: bool = True) -> MultiAgentMujocoEnv:
    """The PettingZoo parallel environment of `config`: unpadded local observations, actions in each agent's Box.

    Args:
        config: the task; of its observation options only `agent_obsk` and `contact_forces` play a part here.
        with_observations: False makes every agent's observation empty.

    Raises:
        ConfigError: for an unknown partition or joint, or a body that this MuJoCo cannot load.
    """
    mamujoco = _import_mamujoco()
    options: dict[str, Any] = {
        "scenario": config.scenario,
        # Without an agent_conf the package ignores the factorisation and makes a single agent.
        "agent_conf": config.partition,
        "agent_factorization": _factorization(config),
        "agent_obsk": config.agent_obsk,
        "max_episode_steps": config.episode_steps,
        "render_mode": "rgb_array",
        "width": config.render_width,
        "height": config.render_height,
        "disable_env_checker": True,  # the collector checks; gymnasium's checker would cost time at every step
    }
    if not config.contact_forces:
        options |= {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0.0}
        # Own positions and velocities, and the positions of joints at distance 1, 2, ..
        options["local_categories"] = [["qpos", "qvel"]] + [["qpos"]] * config.agent_obsk
    if not with_observations:
        options |= {"agent_obsk": 0, "local_categories": [[]], "global_categories": ()}
    try:
        with known_warnings_silenced():
            env = mamujoco.parallel_env(**options)
        env.state()  # where a body does not fit this MuJoCo, it shows here
    except IndexError as error:
        if config.scenario != "CoupledHalfCheetah":
            raise
        raise ConfigError(
            f"CoupledHalfCheetah does not load on mujoco {importlib.metadata.version('mujoco')}: gymnasium-robotics "
            "reads the tendon's Jacobian in the layout of mujoco 3.5.0 and earlier; install mujoco<=3.5.0 for it"
        ) from error
    return env


def shown_entries(
    env: MultiAgentMujocoEnv, seeing_agents: Sequence[int] | None, observe_velocities: bool
) -> dict[str, np.ndarray] | None:
    """Of each agent that does not see all of its observation, which entries it sees; None where all see everything.

    Raises:
        ConfigError: when there is no agent of such a number.
    """
    agents = env.possible_agents
    seeing = range(1, len(agents) + 1) if seeing_agents is None else seeing_agents
    unknown = [number for number in seeing if number > len(agents)]
    if unknown:
        raise ConfigError(f"MamujocoConfig.seeing_agents names agent {unknown[0]}; there are agents 1 to {len(agents)}")
    driven: Any = [joint.qpos_ids for part in env.agent_action_partitions for joint in part]
    shown = {}
    for number, agent in enumerate(agents):
        if number + 1 not in seeing:
            shown[agent] = _entries_at_positions(env, number, driven)
        elif not observe_velocities:
            shown[agent] = _entries_at_positions(env, number, slice(None))
    return shown or None


def _entries_at_positions(env: MultiAgentMujocoEnv, agent: int, positions: Sequence[int] | slice) -> np.ndarray:
    """Which entries of an observation are among these of `qpos`: what the package makes of markers instead of data."""
    body: Any = env.single_agent_env.unwrapped
    markers = SimpleNamespace(**{name: np.zeros_like(getattr(body.data, name)) for name in _OBSERVED})
    markers.qpos[positions] = 1
    return np.flatnonzero(env._get_obs_agent(agent, markers))


_OBSERVED = ("qpos", "qvel", "cinert", "cvel", "qfrc_actuator", "cfrc_ext")
"""Parts of MuJoCo's data that observations are made of."""


def render_offscreen(env: MultiAgentMujocoEnv) -> np.ndarray:
    """The picture from the camera that follows the body, uint8 [height, width, 3]; needs no screen.

    Where MUJOCO_GL is not set and there is no display, it is set to the first of `egl` and `osmesa` that works.

    Raises:
        EnvError: when the machine offers no way to draw.
    """
    choose_gl()
    _follow_body(env)
    return env.render()


def _follow_body(env: MultiAgentMujocoEnv) -> None:
    """Look through the body's own camera `track`, where it has one: gymnasium's default stands still, bodies do not."""
    mujoco = importlib.import_module("mujoco")
    single: Any = env.single_agent_env.unwrapped
    camera = mujoco.mj_name2id(single.model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
    if camera >= 0:
        single.mujoco_renderer.camera_id = camera


def _factorization(config: MamujocoConfig) -> dict[str, Any] | None:
    """The package's own description of who drives which joint; None where it knows the partition itself."""
    from gymnasium_robotics.envs.multiagent_mujoco.obsk import get_parts_and_edges

    # The many-segment bodies have no joints before their partition says how many segments there are.
    known = config.partition if config.joints is None or config.scenario.startswith("ManySegment") else None
    try:
        parts, edges, globals_ = get_parts_and_edges(config.scenario, known)
    except Exception as error:  # the package raises bare `Exception` here and nothing narrower
        raise ConfigError(
            f"{config.scenario} has no partition {known!r} ({error}); choose one that configs/env/mamujoco lists, or "
            "give the joints of each agent in env.joints"
        ) from error
    if config.joints is None:
        return None
    nodes = {node.label: node for part in parts for node in part}
    listed = [label for agent in config.joints for label in agent]
    if sorted(listed) != sorted(nodes):
        raise ConfigError(
            f"MamujocoConfig.joints = {config.joints}: expected each joint of {config.scenario} exactly once: "
            f"{', '.join(nodes)}"
        )
    partition = [tuple(nodes[label] for label in agent) for agent in config.joints]
    return {"partition": partition, "edges": edges, "globals": globals_}


def _import_mamujoco() -> Any:
    """Import the package without its notice on stderr about the Adroit hands, which nothing here uses."""
    try:
        from farama_notifications import notifications
    except ImportError:
        notifications = {}
    notices = notifications.get("gymnasium_robotics", {})
    for version in [version for version, text in notices.items() if text.startswith("AdroitHand")]:
        del notices[version]
    from gymnasium_robotics import mamujoco_v1

    return mamujoco_v1


@contextlib.contextmanager
def known_warnings_silenced() -> Iterator[None]:
    """While a body is loaded, drop MuJoCo's notice on `settotalmass`, and turn its other warnings into Python's.

    Gymnasium's HalfCheetah uses that deprecated attribute; MuJoCo 4 would print it for every environment made, and
    write a MUJOCO_LOG.TXT into the current folder.
    """
    mujoco = importlib.import_module("mujoco")  # its functions are bound at run time, unknown to the type checker

    def on_warning(message: str) -> None:
        if "'settotalmass' is deprecated" not in message:
            warnings.warn(f"MuJoCo: {message}", RuntimeWarning, stacklevel=2)

    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(on_warning)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
