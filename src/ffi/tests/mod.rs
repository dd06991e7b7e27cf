pub(super) mod panics;
