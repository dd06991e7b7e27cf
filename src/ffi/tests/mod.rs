//! What can only be tested from within: bugs stopped at the border, and the table of handles.

mod handles;
pub(super) mod panics;
