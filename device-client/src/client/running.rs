//! What runs of each component, and what the start decides about it.

use dialhome_proto::code::BootReason;
use dialhome_proto::device::{COMPONENTS, Cells, ComponentConfig, Machine};
use heapless::Vec;

use crate::boot::{Boot, Restart, Running};

/// Asks what runs; what was found before stays where that cannot be told.
#[inline(never)]
pub(super) fn ask(boot: &mut impl Boot, component: u8, size: Option<u32>, found: &mut Running) {
    if let Ok(running) = boot.running(component, size) {
        *found = running;
    }
}

/// What runs of each component, and whether the board restarts.
pub(super) fn running<B: Boot>(
    boot: &mut B,
    components: &[ComponentConfig],
    cells: &Cells,
) -> (Vec<Running, COMPONENTS>, bool) {
    let mut all = Vec::new();
    let mut restart = false;
    for (place, config) in components.iter().enumerate() {
        let trial = cells.trial_image(config.component);
        let known = Machine::known_size(cells, place);
        let size = trial.map(|image| image.size).or(known);
        let mut found = Running::UNKNOWN;
        ask(boot, config.component, size, &mut found);
        let returned = found.boot_reason == BootReason::REVERT;
        match trial {
            // Another image runs than the one on trial, and may have another size.
            Some(image) if found.digest != image.sha256 && known != size => {
                ask(boot, config.component, known, &mut found);
            }
            // An image on trial of which the journal knows nothing: nobody could say any more
            // of which update it is, or judge it. A return of which nobody knows is forgotten,
            // or the next update would take it for its own.
            None if found.on_trial || found.unfinished || returned => {
                let reverted = boot.revert(config.component);
                // A board that says so again right after it went back would restart for ever.
                restart |= reverted == Ok(Restart::Needed) && !returned;
                found = Running::UNKNOWN;
                ask(boot, config.component, size, &mut found);
            }
            _ => {}
        }
        if all.push(found).is_err() {
            break;
        }
    }
    let restarting = restart && boot.restart(BootReason::REVERT).is_ok();
    (all, restarting)
}
