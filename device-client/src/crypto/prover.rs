//! The board's half of the proofs over QUIC (spec/protocol.md sections 1.2 and 2.7).

use dialhome_proto::link::quic::{
    EXPORTER_LEN, PROOF_FLIGHT_LEN, PROOF_LEN, PROVEN_LEN, Proofs, SUITE_QUIC_PROOF,
};
use dialhome_proto::link::{ACCEPTED, DeviceKey, Preamble, REFUSED_LEN, Refusal, reply_missing_of};

use super::handshake::HandshakeFault;

/// A proof that waits for the gateway's own.
#[derive(Debug)]
pub struct Prover(Proofs);

impl Prover {
    /// Begins: `out` becomes the preamble and the board's proof, to be sent in one write.
    #[must_use]
    pub fn start(
        key: &DeviceKey,
        exporter: &[u8; EXPORTER_LEN],
        out: &mut [u8; PROOF_FLIGHT_LEN],
    ) -> Self {
        let proofs = Proofs::new(key, exporter);
        let preamble = Preamble::with_suite(key.handle(), SUITE_QUIC_PROOF).encode();
        // Lossless: the first flight is the preamble and the proof.
        for (to, from) in out.iter_mut().zip(preamble.iter().chain(proofs.board())) {
            *to = *from;
        }
        Self(proofs)
    }

    /// How many more bytes of the answer must be read before [`Self::finish`], given those that
    /// have come. 0: no more.
    #[must_use]
    pub const fn needed(answer: &[u8]) -> usize {
        reply_missing_of(answer, PROVEN_LEN)
    }

    /// Takes the gateway's whole answer.
    ///
    /// # Errors
    /// As of a handshake on TCP; [`HandshakeFault::BadTag`]: the gateway does not have the key.
    pub fn finish(self, answer: &[u8]) -> Result<(), HandshakeFault> {
        if let Ok(refusal) = <&[u8; REFUSED_LEN]>::try_from(answer)
            && let Some(refusal) = Refusal::decode(refusal)
        {
            return Err(HandshakeFault::Refused(refusal));
        }
        let [ACCEPTED, proof @ ..] = answer else {
            return Err(HandshakeFault::Malformed);
        };
        let proof: &[u8; PROOF_LEN] = proof.try_into().map_err(|_| HandshakeFault::Malformed)?;
        if self.0.is_gateway(proof) {
            Ok(())
        } else {
            Err(HandshakeFault::BadTag)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dialhome_proto::code;

    #[test]
    fn the_answer_is_a_refusal_or_the_gateways_own_proof() {
        let key = DeviceKey::new([1; 32]);
        let exporter = [2; EXPORTER_LEN];
        let begin = || Prover::start(&key, &exporter, &mut [0; PROOF_FLIGHT_LEN]);
        let proofs = Proofs::new(&key, &exporter);
        let mut flight = [0; PROOF_FLIGHT_LEN];
        let _ = Prover::start(&key, &exporter, &mut flight);
        assert_eq!(flight[5], SUITE_QUIC_PROOF);
        assert_eq!(flight[14..], proofs.board()[..]);

        let mut answer = [ACCEPTED; PROVEN_LEN];
        answer[1..].copy_from_slice(proofs.gateway());
        assert_eq!(Prover::needed(&answer[..4]), PROVEN_LEN - 4);
        assert_eq!(begin().finish(&answer), Ok(()));
        // What the board itself said proves nothing about the gateway.
        answer[1..].copy_from_slice(proofs.board());
        assert_eq!(begin().finish(&answer), Err(HandshakeFault::BadTag));
        assert_eq!(begin().finish(&answer[..7]), Err(HandshakeFault::Malformed));
        let refusal = Refusal::new(code::Refusal::REFUSED, 20);
        assert_eq!(
            begin().finish(&refusal.encode()),
            Err(HandshakeFault::Refused(refusal))
        );
    }
}
