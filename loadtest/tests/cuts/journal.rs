//! The journal alone: a store is there or not, whole, and stays as it was first read.

use dialhome_device::journal::Journal;
use dialhome_device::nor::{JournalLayout, NorJournal, Partition, Region};
use dialhome_loadtest::sim::nor::{Moment, Nor, Rules};
use std::cell::RefCell;
use std::collections::BTreeMap;

type Cells = BTreeMap<u8, Vec<u8>>;

/// Starts after a cut; weak bits keep still for the first, and no longer.
const STARTS: u64 = 6;

struct Flash {
    name: &'static str,
    layout: JournalLayout,
    rules: Rules,
}

fn journal<const W: usize, const E: usize>(
    flash: Nor<W, E>,
    layout: &JournalLayout,
) -> NorJournal<Nor<W, E>> {
    NorJournal::new(flash, layout).expect("it fits")
}

/// Every cell, or what cannot be read.
fn load<const W: usize, const E: usize>(
    journal: &mut NorJournal<Nor<W, E>>,
) -> Result<Cells, String> {
    let mut cells = Cells::new();
    for cell in 1..=11 {
        let mut buffer = [0; 700];
        match journal.load(cell, &mut buffer) {
            Ok(None) => {}
            Ok(Some(len)) => {
                cells.insert(cell, buffer[..len].to_vec());
            }
            Err(error) => return Err(format!("cell {cell}: {error}")),
        }
    }
    Ok(cells)
}

/// What a board does in its life: the cell and its new value, `None` to erase it.
fn script() -> Vec<(u8, Option<Vec<u8>>)> {
    let mut steps = Vec::new();
    for round in 0..14_u8 {
        let fill = |len: usize| {
            let bytes = (0..len).map(|at| round.wrapping_mul(37) ^ u8::try_from(at % 200).unwrap());
            Some(bytes.collect::<Vec<u8>>())
        };
        steps.push((9, fill(100 + usize::from(round))));
        steps.push((10, if round % 5 == 4 { None } else { fill(158) }));
        if round % 3 == 0 {
            steps.push((2, fill(32)));
            steps.push((11, fill(usize::from(round) * 12)));
        }
        if round % 6 == 0 {
            steps.push((4, fill(700)));
            steps.push((1, fill(66)));
        }
    }
    steps
}

/// What the cells may be after a cut in a step.
struct May {
    old: Cells,
    new: Cells,
}

/// Starts again and again: what is first read must be one of the two, and stay.
fn check<const W: usize, const E: usize>(
    mut flash: Nor<W, E>,
    layout: &JournalLayout,
    may: &May,
) -> Result<(), String> {
    let mut first: Option<Cells> = None;
    for start in 0..STARTS {
        flash.start(start * 77 + flash.ops);
        let mut journal = journal(flash, layout);
        let cells = load(&mut journal)?;
        flash = journal.into_inner();
        if cells != may.old && cells != may.new {
            return Err(format!(
                "start {start}: neither the old nor the new: {cells:?}"
            ));
        }
        if first.as_ref().is_some_and(|first| *first != cells) {
            return Err(format!("start {start}: another value than before"));
        }
        first = Some(cells);
    }
    // It goes on.
    let mut cells = first.unwrap_or_default();
    let mut journal = journal(flash, layout);
    for round in 0..12 {
        for cell in [2, 9] {
            journal
                .store(cell, &[round; 31])
                .map_err(|error| error.to_string())?;
            cells.insert(cell, vec![round; 31]);
        }
        if load(&mut journal)? != cells {
            return Err(format!("round {round} after it"));
        }
    }
    Ok(())
}

fn sweep<const W: usize, const E: usize>(flash: &Flash) {
    let layout = &flash.layout;
    let units = usize::try_from(layout.len()).unwrap() / E;
    let mut nor: Nor<W, E> = Nor::new(units, flash.rules, 3);
    nor.history = Some(Vec::new());
    let mut mays = vec![];
    let mut cells = Cells::new();
    let nor = RefCell::new(nor);
    let open = || {
        nor.borrow_mut().start(7);
        let region = Region {
            offset: 0,
            len: layout.len(),
        };
        let part = Partition::new(&nor, region).expect("it lies in the flash");
        NorJournal::new(part, layout).expect("it fits")
    };
    let mut journal = open();
    for (place, (cell, value)) in script().into_iter().enumerate() {
        if place % 7 == 6 {
            journal = open();
        }
        nor.borrow_mut().tag = place;
        let old = cells.clone();
        match value {
            Some(value) => {
                journal.store(cell, &value).expect("it takes it");
                cells.insert(cell, value);
            }
            None => {
                journal.erase(cell).expect("it takes it");
                cells.remove(&cell);
            }
        }
        mays.push(May {
            old,
            new: cells.clone(),
        });
    }
    let mut nor = nor.into_inner();
    let history = nor.history.take().expect("it was kept");
    let mut tried = 0;
    for (place, snapshot) in history.iter().enumerate() {
        let may = &mays[snapshot.tag];
        for seed in 0..6 {
            let moment = match seed {
                0 => Moment::Before,
                1 => Moment::After,
                seed => Moment::During(seed - 2),
            };
            let what = |more: &str, error: String| {
                format!(
                    "{}: {moment:?} of operation {place}, {:?}{more}: {error}",
                    flash.name, snapshot.op
                )
            };
            let cut = snapshot.cut(moment);
            if let Err(error) = check(cut.clone(), layout, may) {
                panic!("{}", what("", error));
            }
            tried += 1;
            // Cut again in what the next start does about it.
            let mut cut = cut;
            cut.start(5);
            cut.history = Some(Vec::new());
            let mut journal = self::journal(cut, layout);
            let found = load(&mut journal).expect("it can be read");
            let inner = journal.into_inner().history.expect("it was kept");
            for (at, second) in inner.iter().enumerate() {
                for again in 0..4 {
                    let cut = second.cut(Moment::During(again));
                    if let Err(error) = check(cut, layout, may) {
                        panic!(
                            "{}",
                            what(&format!(", then {again} of {at}, {:?}", second.op), error)
                        );
                    }
                    tried += 1;
                }
            }
            drop(found);
        }
    }
    eprintln!(
        "{}: {} operations of the journal, {tried} cuts",
        flash.name,
        history.len()
    );
}

#[test]
fn a_value_is_there_or_not_and_stays_so() {
    let free = Rules {
        writes_max: 0,
        page: 256,
        read_errors: false,
    };
    sweep::<4, 256>(&Flash {
        name: "samd21",
        layout: JournalLayout::least(256, JournalLayout::granule(4, 256, 8), 1),
        rules: Rules {
            writes_max: 8,
            page: 64,
            read_errors: false,
        },
    });
    sweep::<8, 2048>(&Flash {
        name: "stm32",
        layout: JournalLayout::least(2048, 16, 1),
        rules: free,
    });
    sweep::<8, 2048>(&Flash {
        name: "stm32, read errors",
        layout: JournalLayout::least(2048, 16, 1),
        rules: Rules {
            read_errors: true,
            ..free
        },
    });
    sweep::<256, 4096>(&Flash {
        name: "sectors in pages",
        layout: JournalLayout::least(4096, 256, 1),
        rules: free,
    });
}

/// Runs the script where these places of a bank's header cannot be written: what a store
/// said Ok to is there at every later start. The number of stores that were errors.
fn bad_headers(ring: u32, bank: u32, places: &[u32]) -> usize {
    let layout = JournalLayout::least(1024, 16, 1);
    let rules = Rules {
        writes_max: 0,
        page: 256,
        read_errors: false,
    };
    let mut nor: Nor<4, 1024> = Nor::new(usize::try_from(layout.len()).unwrap() / 1024, rules, 3);
    let start = match ring {
        0 => layout.identity_bank * bank,
        _ => layout.identity_bank * 2 + layout.progress_bank * bank,
    };
    for place in places {
        nor.stick(usize::try_from(start + place * 16).unwrap(), 0xFF);
    }
    let mut errors = 0;
    let mut may: BTreeMap<u8, Vec<Option<Vec<u8>>>> = BTreeMap::new();
    let mut journal = journal(nor, &layout);
    for (step, (cell, value)) in script().into_iter().enumerate() {
        let result = match &value {
            Some(value) => journal.store(cell, value),
            None => journal.erase(cell),
        };
        let values = may.entry(cell).or_insert_with(|| vec![None]);
        if result.is_ok() {
            values.clear();
        } else {
            errors += 1;
        }
        values.push(value);
        let mut again = self::journal(journal.clone().into_inner(), &layout);
        let found = load(&mut again).expect("it can be read");
        for (cell, values) in &may {
            assert!(
                values.contains(&found.get(cell).cloned()),
                "places {places:?} of bank {bank}, ring {ring}: cell {cell} after step {step}"
            );
        }
        if step % 11 == 10 {
            journal = again;
        }
    }
    errors
}

#[test]
fn a_bad_place_in_a_header_loses_nothing_that_was_stored() {
    for (ring, bank) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        for place in 0..6 {
            assert_eq!(bad_headers(ring, bank, &[place]), 0);
        }
        // None of its pairs can be written to its end; its first halves can.
        assert_ne!(bad_headers(ring, bank, &[1, 3, 5]), 0);
    }
}
