//! What can be checked of a transport without a gateway.

use super::Stage;
use super::check::{Check, Fault, Finding, What};
use crate::transport::Transport;
use dialhome_proto::limits::NETWORK_MAX;

/// How long a dial may take, and by which clock.
pub struct Patience<'p> {
    /// Milliseconds that `connect` may take at the most, as the transport documents it.
    pub connect_ms: u64,
    /// The board's clock, in milliseconds.
    pub clock: &'p mut dyn FnMut() -> u64,
}

/// Dials `nobody`, a `HOST:PORT` where no program listens, and looks at what a transport
/// without a connection answers. Of a `connect` that only begins, `receive` is asked until
/// it says that it failed. A `connect` that never returns never ends this either.
///
/// # Errors
/// The contract that is broken.
pub fn transport<T: Transport>(
    transport: &mut T,
    nobody: &str,
    patience: &mut Patience<'_>,
    watch: &mut dyn FnMut(Check, Finding),
) -> Result<(), Fault> {
    let mut expect = |check, holds: bool, sentence| {
        if !holds {
            return Err(Fault {
                stage: Stage::FIRST,
                check,
                what: What::Found(sentence),
                part: 0,
                at: 0,
            });
        }
        watch(check, Finding::Passed);
        Ok(())
    };
    transport.close();
    let network = transport.facts().network.len();
    expect(Check::Facts, network <= NETWORK_MAX, "it is longer")?;
    let begun = (patience.clock)();
    let mut connected = transport.connect(nobody).is_ok();
    while connected && (patience.clock)().saturating_sub(begun) < patience.connect_ms {
        match transport.receive(&mut [0]) {
            Ok(0) => {}
            Ok(_) => break,
            Err(_) => connected = false,
        }
    }
    let took = (patience.clock)().saturating_sub(begun);
    expect(Check::Nobody, !connected, "it says that it is connected")?;
    let within = took <= patience.connect_ms;
    expect(Check::Bound, within, "it took longer")?;
    transport.close();
    transport.close();
    let sent = transport.send(&[0]).is_err();
    expect(Check::ClosedSend, sent, "it takes bytes")?;
    let received = transport.receive(&mut [0]).is_err();
    expect(
        Check::ClosedReceive,
        received,
        "it says that there is nothing yet",
    )
}
