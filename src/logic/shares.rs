//! How much of what all share one client may have, whatever it sends.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// Where a client is: its address, or the network of 64 bits that one host is given with IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(remote: IpAddr) -> Self {
        // An IPv4 client of a socket that takes both kinds is an IPv4 client.
        Self(match remote.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            address => address,
        })
    }
}

/// Counts what each network has.
#[derive(Debug)]
pub struct Shares {
    /// The most of one.
    limit: usize,
    taken: HashMap<Network, usize>,
}

impl Shares {
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            taken: HashMap::new(),
        }
    }

    /// Whether there is one more for it, which it has then.
    pub fn take(&mut self, network: Network) -> bool {
        let taken = self.taken.entry(network).or_default();
        let free = *taken < self.limit;
        *taken += usize::from(free);
        free
    }

    pub fn give_back(&mut self, network: Network) {
        if let Some(taken) = self.taken.get_mut(&network) {
            *taken -= 1;
            if *taken == 0 {
                self.taken.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str) -> Network {
        Network::from(address.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn a_host_is_one_client_however_many_addresses_it_has() {
        assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.1"));
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:0:0:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }

    #[test]
    fn nobody_takes_more_than_a_share_and_nobody_is_remembered() {
        let mut shares = Shares::new(2);
        let [here, there] = ["192.0.2.1", "192.0.2.2"].map(network);
        assert!(shares.take(here) && shares.take(here) && !shares.take(here));
        assert!(shares.take(there));
        shares.give_back(here);
        assert!(shares.take(here) && !shares.take(here));
        for network in [here, here, there] {
            shares.give_back(network);
        }
        assert!(shares.taken.is_empty());
    }
}
