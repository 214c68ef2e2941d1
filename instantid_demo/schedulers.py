"""The sampling methods that a request may name, made for a base model's own noise schedule."""

from typing import Any

import diffusers

from instantid_demo.request import Scheduler

_CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "use_karras_sigmas": False}),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True}),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
}


def build(name: Scheduler, config: Any, **overrides: Any) -> Any:
    """A fresh scheduler (it has state: one per run).

    Args:
        name: a request's scheduler; `auto` is the base model's own class.
        config: the base model's scheduler config; its noise schedule and kind of prediction stay.
        overrides: more settings of the scheduler, such as `timestep_spacing="trailing"`.
    """
    if name == "auto":
        return getattr(diffusers, config["_class_name"]).from_config(config, **overrides)
    class_name, own = _CLASSES[name]
    settings = {**own, **overrides}
    if name == "dpmpp_2m_karras" and config.get("rescale_betas_zero_snr"):
        # Karras' spacing needs a finite largest sigma; a schedule of zero terminal SNR has none.
        settings["rescale_betas_zero_snr"] = False
    if class_name == "DPMSolverMultistepScheduler":
        # Without it few steps leave noise in the picture (diffusers' own advice below 15 steps).
        settings.setdefault("euler_at_final", True)
    return getattr(diffusers, class_name).from_config(config, **settings)
