//! The `dialhome` command: the gateway, and the operator's commands.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    dialhome_gateway::cli::main()
}
