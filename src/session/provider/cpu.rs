//! The CPU provider.

use ort::session::builder::SessionBuilder;

pub(super) fn register(builder: SessionBuilder) -> ort::Result<SessionBuilder> {
    let cpu = ort::ep::CPU::default().with_arena_allocator(true).build().error_on_failure();
    Ok(builder.with_execution_providers([cpu])?)
}
