//! A bundle holds what it may hold, and everything else is refused in words.

#[path = "../bundle_support/mod.rs"]
mod bundle_support;
#[path = "../common/project.rs"]
mod project;

mod limits;
mod manifest;
mod open;
mod prescan;
