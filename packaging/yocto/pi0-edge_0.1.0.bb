# A sketch for meta-tegra images: the arm64 package of `scripts/jetson.sh deb`, unpacked into an image. Not built with
# BitBake here. It goes beside a directory `files` that holds the package.
SUMMARY = "Runtime for PI0 vision-language-action policies on robots"
LICENSE = "MIT | Apache-2.0"
LIC_FILES_CHKSUM = "file://usr/share/doc/pi0-edge/copyright;md5=ec4122e826920d708beec9e668125f61"

SRC_URI = "file://pi0-edge_${PV}_arm64.deb;subdir=${BP}"
# Releases before Yocto 5.1 unpack into WORKDIR.
S = "${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}/${BP}"

COMPATIBLE_HOST = "aarch64.*-linux"

inherit bin_package systemd

# Debian's library directory has the architecture in its name, where Yocto's loader does not look.
do_install:append() {
    install -d ${D}${libdir}
    mv ${D}/usr/lib/aarch64-linux-gnu/* ${D}${libdir}/
    rmdir ${D}/usr/lib/aarch64-linux-gnu
}

SYSTEMD_SERVICE:${PN} = "pi0-edge-prepare.service"

# meta-tegra-community builds it with CUDA and TensorRT; pi0-edge finds it on the system's library path.
RDEPENDS:${PN} = "onnxruntime (>= 1.20)"
