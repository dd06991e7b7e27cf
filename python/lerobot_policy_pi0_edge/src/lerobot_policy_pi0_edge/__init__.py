"""pi0-edge bundles as policies of lerobot. Importing it registers the policy type `pi0_edge`, which lerobot does by itself."""

from .configuration_pi0_edge import Pi0EdgeConfig

__all__ = ["Pi0EdgeConfig"]
