//! Places for HTTP connections: so many for all, and of these so many for one address.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::doors::events::MAX_READERS;
use crate::logic::shares::{Network, Shares};

/// HTTP connections served at a time; more wait in the kernel.
const ALL: usize = 256;
/// Those of one address; more are turned away. It may be a proxy's that speaks for many: all who read events fit in, and
/// as many again as are left to others.
const OF_ONE: usize = 2 * MAX_READERS + (ALL - 2 * MAX_READERS) / 2;

pub struct Places {
    free: Arc<Semaphore>,
    shares: Arc<Mutex<Shares>>,
}

/// Free again when it is dropped.
pub struct Place {
    network: Network,
    shares: Arc<Mutex<Shares>>,
    _one_of_all: OwnedSemaphorePermit,
}

impl Places {
    pub fn new() -> Self {
        Self {
            free: Arc::new(Semaphore::new(ALL)),
            shares: Arc::new(Mutex::new(Shares::new(OF_ONE))),
        }
    }

    /// Waits until somebody may come.
    pub async fn one_is_free(&self) -> OwnedSemaphorePermit {
        let free = self.free.clone().acquire_owned().await;
        free.expect("the semaphore is never closed")
    }

    /// The place of who came; none where that address has its share already.
    pub fn take(&self, free: OwnedSemaphorePermit, remote: IpAddr) -> Option<Place> {
        let network = Network::from(remote);
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.take(network).then(|| Place {
            network,
            shares: self.shares.clone(),
            _one_of_all: free,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.give_back(self.network);
    }
}
