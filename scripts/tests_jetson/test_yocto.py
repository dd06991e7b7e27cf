"""The recipe sketch, as far as it can be checked without BitBake: it names what the package really holds."""
import hashlib
import re

from conftest import PROJECT


def test_recipe_follows_the_package():
    recipes = list((PROJECT / "packaging/yocto").glob("*.bb"))
    version = re.search(r'^version = "(.*)"', (PROJECT / "Cargo.toml").read_text(), re.M)[1]
    assert [recipe.name for recipe in recipes] == [f"pi0-edge_{version}.bb"]
    text = recipes[0].read_text()
    files = (PROJECT / "packaging/deb/pi0-edge/files").read_text()
    path, md5 = re.search(r"file://(\S+);md5=(\w+)", text).groups()
    assert path in files.split()
    assert md5 == hashlib.md5((PROJECT / "packaging/deb/pi0-edge/copyright").read_bytes()).hexdigest()
    assert f"usr/lib/systemd/system/{re.search(r'SYSTEMD_SERVICE.*= .(.*).$', text, re.M)[1]}" in files.split()
