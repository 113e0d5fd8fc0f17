//! The one tokio runtime of the plugin: sockets and HTTP of every element share its two workers.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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

/// Visitors who leave together are tidied up after together.
const TIDY_AFTER: Duration = Duration::from_secs(5);

/// Gives memory that visitors have left behind back to the system, a while from now and once for all who ask
/// until then.
///
/// Every thread of a connection allocates in an arena of glibc's that may be shared with nobody. What is freed
/// there stays with the process, and after a crowd that is most of what the process has.
pub fn tidy_memory_soon() {
    static ASKED: AtomicBool = AtomicBool::new(false);
    if ASKED.swap(true, Ordering::Relaxed) {
        return;
    }
    runtime().spawn(async {
        tokio::time::sleep(TIDY_AFTER).await;
        ASKED.store(false, Ordering::Relaxed);
        #[cfg(target_env = "gnu")]
        runtime().spawn_blocking(|| {
            #[allow(unsafe_code, reason = "no crate wraps this call")]
            // SAFETY: it takes no pointer and may be called from any thread at any time.
            unsafe {
                libc::malloc_trim(0)
            }
        });
    });
}
