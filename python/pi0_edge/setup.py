"""Names the platform of a wheel that carries the library; without PI0_EDGE_WHEEL the wheel has Python files alone."""

import os

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.dist import Distribution

PLATFORM = os.environ.get("PI0_EDGE_WHEEL")


class WithLibrary(Distribution):
    def has_ext_modules(self) -> bool:
        return PLATFORM is not None


class AnyPython(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", PLATFORM or "any"


setup(distclass=WithLibrary, cmdclass={"bdist_wheel": AnyPython})
