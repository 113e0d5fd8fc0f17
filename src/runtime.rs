//! The one tokio runtime of the plugin: sockets and HTTP of every element share its two workers.

use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("rtcinference")
        .enable_io()
        .enable_time()
        .build()
        .expect("threads for the runtime can be started")
});

/// The runtime; started with its first use, never at plugin load.
pub fn runtime() -> &'static Runtime {
    &RUNTIME
}
