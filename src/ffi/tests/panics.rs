pub(in crate::ffi) fn planted() {}
