"""A dummy Linux_for_Tegra: the files that the scripts look at, and NVIDIA's tools as programs that log their arguments."""
import pathlib

STATUS = """Package: {name}
Status: install ok installed
Architecture: arm64
Version: {version}
Maintainer: nobody <nobody@example.invalid>
Description: stand-in

"""
LAYOUTS = {
    "35.6.1": ["tools/kernel_flash/flash_l4t_external.xml", "bootloader/t186ref/cfg/flash_t234_qspi.xml"],
    "36.2.0": ["tools/kernel_flash/flash_l4t_external.xml", "bootloader/generic/cfg/flash_t234_qspi.xml"],
    "36.4.3": ["tools/kernel_flash/flash_l4t_external.xml", "tools/kernel_flash/flash_l4t_t234_nvme.xml",
               "bootloader/generic/cfg/flash_t234_qspi.xml"],
    "38.4.0": ["tools/kernel_flash/flash_l4t_t264_nvme.xml"],
    "39.2.0": ["tools/kernel_flash/flash_l4t_t234_nvme.xml", "tools/kernel_flash/flash_l4t_t264_nvme.xml",
               "bootloader/generic/cfg/flash_t234_qspi.xml"],
}
CONFIGURATIONS = ("jetson-agx-orin-devkit", "jetson-agx-orin-devkit-industrial", "jetson-orin-nano-devkit",
                  "jetson-orin-nano-devkit-super", "jetson-agx-thor-devkit")


class Bsp:
    def __init__(self, machine, release="36.4.3", extra_pkg=False, installed=True, user=True):
        self.machine = machine
        self.dir = machine.root / "Linux_for_Tegra"
        self.rootfs = self.dir / "rootfs"
        major, revision = release.split(".", 1)
        for name in LAYOUTS[release] + [f"{c}.conf" for c in CONFIGURATIONS]:
            self.file(name)
        machine.program("l4t_initrd_flash.sh", self.flash_tool(), self.dir / "tools/kernel_flash")
        machine.program("apply_binaries.sh", self.help_text(extra_pkg), self.dir)
        passwd = "root:x:0:0:root:/root:/bin/bash\n" + ("robot:x:1000:1000::/home/robot:/bin/bash\n" if user else "")
        self.file("rootfs/etc/passwd", passwd)
        self.file("rootfs/etc/nv_tegra_release", f"# R{major} (release), REVISION: {revision}, GCID: 1, BOARD: generic, "
                                                 "EABI: aarch64, DATE: Mon Jan  1 00:00:00 UTC 2026\n")
        self.packages = {"libc6": "2.35-0ubuntu3.8", "libgcc-s1": "12.3.0-1ubuntu1", "libstdc++6": "12.3.0-1ubuntu1"}
        if installed:
            self.packages |= {"pi0-edge": "0.1.0", "pi0-edge-onnxruntime": "1.31.1-1"}
        self.write_status()

    def flash_tool(self):
        return f'env | grep -E "^(BOARD|FAB|CHIP)" | sort >>"$LOG"\nfor c; do :; done\n' \
               f'case "$*" in *--no-flash*) for c in {" ".join(CONFIGURATIONS)} my-carrier; do ' \
               f'case " $* " in *" $c "*) : >"mfi_$c.tar.gz" ;; esac; done ;; esac\n'

    def help_text(self, extra_pkg):
        line = "    --extra-pkg PATH\n" if extra_pkg else ""
        return f'case "$*" in *--help*) printf "Use: apply_binaries.sh\\n{line}"; exit 1 ;; esac\n'

    def file(self, name, text=""):
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def write_status(self):
        self.file("rootfs/var/lib/dpkg/status",
                  "".join(STATUS.format(name=n, version=v) for n, v in self.packages.items()))

    def usb(self, *products, vendor="0955"):
        """What is plugged into the host: a sysfs tree for PI0_EDGE_USB_DEVICES."""
        root = self.machine.root / "usb"
        for i, product in enumerate(products):
            device = root / f"1-{i + 1}"
            device.mkdir(parents=True)
            (device / "idVendor").write_text(vendor + "\n")
            (device / "idProduct").write_text(product + "\n")
        root.mkdir(exist_ok=True)
        return pathlib.Path(root)
