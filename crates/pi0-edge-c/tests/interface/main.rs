//! The C interface through real compilers: its header, its programs, misuse, sanitizers, installation.

mod support;

mod header;
mod install;
mod misuse;
mod programs;
mod sanitized;
