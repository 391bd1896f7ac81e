//! A board that was built without `rotation` and `gateway-lists`: what it answers
//! (spec/protocol.md section 5.7). `.ci/test` builds it so.
#![cfg(not(any(feature = "rotation", feature = "gateway-lists")))]
#![forbid(unsafe_code)]

use dialhome_proto::code::{BootReason, DigestFrom, Revert};
use dialhome_proto::device::{Cell, Cells, ComponentConfig, Config, Machine, RunningImage, Work};
use dialhome_proto::frame::{DeviceFrame, GatewayFrame, NewKey, SetGateways, Unsupported, Welcome};
use dialhome_proto::id::{Digest, Handle};
use dialhome_proto::time::Millis;
use heapless::Vec as Fixed;

const NOW: Millis = Millis(1000);

fn machine(cells: Cells) -> Machine<'static> {
    let config = Config {
        device: "board-1",
        product: "board",
        hardware: 1,
        client: "test",
        receive_buffer: 1088,
        tasks: 0,
        ping_s: 60,
        ping_s_min: 60,
        wake_s: 0,
        backoff_ms: (1000, 900_000),
        gateways: 1,
        components: &[ComponentConfig {
            component: 0,
            slot_size: 65_536,
            write_unit: 64,
            erase_unit: 1024,
            window: 2048,
            commit_ms: 10,
            claim_every: 1024,
        }],
    };
    let mut running = Fixed::new();
    let image = RunningImage {
        digest: Digest([9; 32]),
        digest_from: DigestFrom::BOOTED,
        boot_reason: BootReason::POWER_ON,
        revert: Revert::SWAP,
        ..RunningImage::UNKNOWN
    };
    running.push(image).expect("one fits");
    Machine::new(config, cells, running, 1, NOW)
}

/// Hands the frame to a board that is online; returns what it sends.
fn answer(frame: &GatewayFrame<'_>) -> Vec<u8> {
    let mut machine = machine(Cells::default());
    assert!(matches!(machine.poll_work(NOW), Some(Work::Dial { .. })));
    machine.dialed(Ok(()), NOW);
    let mut buffer = [0; 1008];
    let hello = machine.poll_transmit(&mut buffer, NOW).expect("Hello");
    assert_eq!(buffer[..hello].first(), Some(&0x10), "Hello's number");
    let welcome = GatewayFrame::from(Welcome {
        time_s: 0,
        ping_s: 0,
    });
    let mut record = [0; 1008];
    for frame in [&welcome, frame] {
        let len = frame.encode(&mut record).expect("it fits");
        assert!(machine.wants_record());
        machine.handle_record(&record[..len], NOW);
    }
    assert_eq!(machine.poll_work(NOW), None, "nothing is checked or stored");
    let len = machine.poll_transmit(&mut buffer, NOW).expect("an answer");
    assert_eq!(machine.poll_transmit(&mut [0; 1008], NOW), None);
    buffer[..len].to_vec()
}

#[test]
fn a_new_key_and_a_list_of_gateways_are_unsupported() {
    let key = GatewayFrame::from(NewKey { key: [7; 32] });
    let list = GatewayFrame::from(SetGateways {
        statement: &[1; 90],
    });
    for frame in [key, list] {
        let number = frame.number();
        let answer = answer(&frame);
        let expected = DeviceFrame::from(Unsupported { number });
        assert_eq!(DeviceFrame::decode(&answer), Ok(expected));
    }
}

#[test]
fn what_an_earlier_image_stated_of_its_key_and_its_list_is_withdrawn() {
    // The journal's cell: two entries, of kind 1 (KeyStored) and kind 2 (GatewaysStored).
    let mut cell = vec![7, 2, 6, 1];
    cell.extend([5; size_of::<Handle>()]);
    cell.extend([7, 2, 3]);
    cell.extend([0, 0]);
    let mut cells = Cells::default();
    assert!(cells.load(Cell::Outbox, &cell), "the cell's format");
    assert_eq!(cells.outbox.entries().len(), 2);
    let mut machine = machine(cells);
    assert!(machine.cells().outbox.entries().is_empty());
    assert_eq!(machine.poll_work(NOW), Some(Work::Store(Cell::Outbox)));
}

#[test]
fn cells_of_an_earlier_image_are_left_alone() {
    let mut cells = Cells::default();
    for cell in [Cell::Keys, Cell::Trust, Cell::Gateways] {
        assert!(!cell.is_used());
        assert!(cells.load(cell, &[0xFF; 66]), "not asked what it holds");
    }
    assert_eq!(cells, Cells::default());
}
