//! The demands of a bundle's graphs on the provider that is to run them.

use crate::bundle::{Manifest, Target};
use crate::error::Result;
use crate::lookup::numbers_of;
use crate::provider::Provider;

/// Checks that TensorRT of `version`, by way of ONNX Runtime of `onnxruntime`, takes the bundle's graphs.
///
/// # Errors
/// [`ErrorKind::Provider`](crate::ErrorKind::Provider), saying what would run them.
pub(super) fn check_tensorrt(manifest: &Manifest, onnxruntime: &str, version: &str) -> Result<()> {
    check(manifest, Provider::TensorRt, onnxruntime)?;
    let Some(least) = &manifest.tensorrt else { return Ok(()) };
    ensure!(
        numbers_of(version) >= numbers_of(least),
        Provider,
        "the bundle's graphs need TensorRT {least} or newer, this is {version}; export with --target tensorrt \
         --tensorrt-version 10.3"
    );
    Ok(())
}

/// Checks that `provider`, of an ONNX Runtime of `version`, has every operator of the bundle's graphs.
///
/// # Errors
/// [`ErrorKind::Provider`](crate::ErrorKind::Provider), saying what would run them.
pub(super) fn check(manifest: &Manifest, provider: Provider, version: &str) -> Result<()> {
    let Some(least) = &manifest.onnxruntime else { return Ok(()) };
    ensure!(
        provider != Provider::TensorRt || manifest.target != Target::Cuda,
        Provider,
        "the bundle's graphs have operators of ONNX Runtime's own, which TensorRT does not take; run it with the \
         provider cuda, or export with --target tensorrt"
    );
    ensure!(
        numbers_of(version) >= numbers_of(least),
        Provider,
        "the bundle's graphs need ONNX Runtime {least} or newer, this is {version}; give a newer one, or export for \
         this one: --target cpu, or --tensorrt-version 10.3"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_the_graphs_need_is_compared_with_what_is_there() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/pi0-tiny/manifest.json");
        let mut manifest = Manifest::read(Path::new(path)).unwrap();
        check(&manifest, Provider::Cpu, "1.20.0").unwrap();
        manifest.onnxruntime = Some("1.23".into());
        manifest.tensorrt = Some("10.14".into());
        check(&manifest, Provider::Cpu, "1.23.0 (0123abc)").unwrap();
        let error = check(&manifest, Provider::Cpu, "1.22.1 (0123abc)").unwrap_err().to_string();
        assert!(error.contains("need ONNX Runtime 1.23 or newer, this is 1.22.1 (0123abc)"), "{error}");
        check_tensorrt(&manifest, "1.24.2", "10.16.2").unwrap();
        let error = check_tensorrt(&manifest, "1.24.2", "10.3.0").unwrap_err().to_string();
        assert!(error.contains("need TensorRT 10.14 or newer, this is 10.3.0"), "{error}");
        manifest.target = Target::Cuda;
        assert!(
            check(&manifest, Provider::TensorRt, "1.32.0")
                .unwrap_err()
                .to_string()
                .contains("--target tensorrt")
        );
    }
}
