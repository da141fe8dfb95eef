"""What may happen to an optimizer, its parameters and their states between two steps."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import torch


def leave_out(*which: int) -> Callable[[Any, list[Any]], None]:
    def event(_: Any, params: list[Any]) -> None:
        for i in which:
            params[i].grad = None

    return event


def replace_velocity(optimizer: Any, params: list[Any]) -> None:
    optimizer.state[params[2]]["velocity"] = torch.ones_like(optimizer.state[params[2]]["velocity"])


def give_velocity_other_data(optimizer: Any, params: list[Any]) -> None:
    """As those do who move a state to a device by hand."""
    velocity = optimizer.state[params[2]]["velocity"]
    velocity.data = 2 * velocity.data


def turn_velocity(optimizer: Any, params: list[Any]) -> None:
    """Another form of the same data."""
    optimizer.state[params[8]]["velocity"].t_()


def set_a_count(optimizer: Any, params: list[Any]) -> None:
    if "step" in optimizer.state[params[3]]:
        optimizer.state[params[3]]["step"].fill_(7.0)


def replace_a_count(optimizer: Any, params: list[Any]) -> None:
    if "step" in optimizer.state[params[3]]:
        optimizer.state[params[3]]["step"] = torch.tensor(7.0)


def load_own_state(optimizer: Any, _: Any) -> None:
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def add_a_parameter(optimizer: Any, params: list[Any]) -> None:
    params.append(torch.nn.Parameter(torch.ones(6, dtype=params[0].dtype)))
    params[-1].grad = torch.ones_like(params[-1])
    optimizer.param_groups[0]["params"].append(params[-1])


def move_parameters(_: Any, params: list[Any]) -> None:
    for p in params:
        p.data = p.data.clone()


def move_some_to_another_group(optimizer: Any, _: Any) -> None:
    first = optimizer.param_groups[0]
    half = len(first["params"]) // 2
    optimizer.param_groups.append({**first, "params": first["params"][half:], "published_decay": True})
    first["params"] = first["params"][:half]


@torch.inference_mode()
def show_in_inference_mode(optimizer: Any, _: Any) -> None:
    optimizer.state_dict()


EVENTS: dict[str, Callable[[Any, list[Any]], Any]] = {
    "nothing": lambda *_: None,
    "gradients are missing": leave_out(1, 3),
    "all but one gradient are missing": leave_out(0, 1, 2, 3, 4, 5, 6, 7),
    "the velocity is replaced": replace_velocity,
    "the velocity has other data": give_velocity_other_data,
    "the velocity is turned": turn_velocity,
    "a velocity is reset in place": lambda o, ps: o.state[ps[4]]["velocity"].zero_(),
    "a count is set": set_a_count,
    "a count is replaced": replace_a_count,
    "state_dict": lambda o, _: o.state_dict(),
    "load_state_dict": load_own_state,
    "all state is dropped": lambda o, _: o.state.clear(),
    "one state is dropped": lambda o, ps: o.state.pop(ps[1]),
    "another parameter": add_a_parameter,
    "parameters get other memory": move_parameters,
    "lr above beta": lambda o, _: o.param_groups[0].update(lr=2.0),
    "lr 0": lambda o, _: o.param_groups[0].update(lr=0.0),
    "published decay": lambda o, _: o.param_groups[0].update(published_decay=True),
    "some move to another group": move_some_to_another_group,
    "compensated": lambda o, _: o.param_groups[0].update(kahan_sum=True),
    "compensated and not again": lambda o, _: o.param_groups[0].update(kahan_sum=not o.param_groups[0]["kahan_sum"]),
    "not compensated": lambda o, _: o.param_groups[0].update(kahan_sum=False),
    "ascend": lambda o, _: o.param_groups[0].update(maximize=True),
    "state_dict in inference mode": show_in_inference_mode,
    "state is pickled": lambda o, _: pickle.dumps(o.state),
    "optimizer is pickled": lambda o, _: pickle.dumps(o),
    "reversed order": lambda o, _: o.param_groups[0]["params"].reverse(),
}
