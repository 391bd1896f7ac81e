//! What a board or an update waits for, and what can go wrong for good, in one plain sentence each: every such
//! sentence is here.

use std::io;
use std::net::IpAddr;

use dialhome_proto::code::{Reason, Revert};

use crate::store::docs::{DeviceDoc, UpdateDoc};

use super::live::Presence;

/// What stands in the way from the operator's side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hold {
    /// Everything is on hold.
    pub(crate) all: bool,
    /// This device is.
    pub(crate) device: bool,
}

/// What the update waits for; none where it has ended.
pub(crate) fn update(update: &UpdateDoc, presence: &Presence, hold: Hold) -> Option<String> {
    let state = match update.state.as_str() {
        "confirmed" | "reverted" | "declined" | "failed" | "canceled" | "abandoned" => return None,
        // The state below the mark leads the detail.
        "overdue" => update
            .detail
            .as_deref()
            .and_then(|detail| detail.split(' ').next())
            .unwrap_or("offered"),
        state => state,
    };
    let device = &update.device;
    let several = update.entries.len() > 1;
    let under_way = update
        .entries
        .iter()
        .find(|entry| several && entry.under_way);
    let of = under_way.map_or_else(String::new, |entry| {
        format!(" of component {}", entry.component)
    });
    let image = if several { "images" } else { "image" };
    let children = children(update);
    // What the board does by itself goes on under a hold; what the gateway would do next does not.
    let gateway_acts = matches!(
        state,
        "queued" | "offered" | "deferred" | "accepted" | "preparing" | "transferring" | "staged"
    );
    if gateway_acts && hold.all {
        return Some("It waits for `dialhome release`: everything is on hold.".into());
    }
    if gateway_acts && hold.device {
        return Some(format!(
            "It waits for `dialhome release {device}`: this device is on hold."
        ));
    }
    if gateway_acts && update.reason.as_deref() == Some("max_bytes") {
        return Some("It waits for you: it has sent as many bytes as --max-bytes allows; push again with a higher limit, or cancel it.".into());
    }
    if !presence.online {
        return Some(match state {
            "queued" => format!("It waits for {device} to dial home; it is offered then."),
            "deferred" => format!(
                "It waits for {device} to dial home; the board had put it off: {}.",
                put_off(update)
            ),
            "canceling" => format!(
                "It waits for {device} to dial home and to say whether it could still cancel."
            ),
            "activating" => match &children {
                Some(children) => format!(
                    "It waits for {device} to dial home; the board installs the new {image} of {children}."
                ),
                None => format!(
                    "It waits for {device} to dial home after its restart into the new {image}."
                ),
            },
            "trial" => {
                format!("It waits for {device}, on trial with the new {image}, to dial home.")
            }
            _ => format!("It waits for {device} to dial home; it goes on where it stopped."),
        });
    }
    if let Some(sentence) = &presence.waiting_for {
        return Some(sentence.clone());
    }
    Some(match state {
        "queued" => format!("It waits for {device} to be free for it."),
        "offered" => format!("It waits for {device} to answer the offer{of}."),
        "deferred" => format!("It waits until {device} is ready: {}.", put_off(update)),
        "accepted" => format!("It waits for {device} to prepare its slot{of}."),
        "preparing" => format!("It waits for {device} to check or erase its slot{of}."),
        "transferring" => {
            let (size, committed) = under_way.map_or((update.size, update.committed), |entry| {
                (entry.size, entry.committed)
            });
            format!(
                "It waits for {device} to commit the remaining {} of {size} bytes{of}.",
                u64::from(size).saturating_sub(committed),
            )
        }
        "verifying" => format!("It waits for {device} to verify the whole image{of}."),
        "staged" => format!("It waits for {device} to be told to activate the {image}."),
        "activating" => match &children {
            Some(children) => {
                format!("It waits while {device} installs the new {image} of {children}.")
            }
            None => {
                format!("It waits for {device} to restart into the new {image} and to dial home.")
            }
        },
        "trial" => format!("It waits for {device} to confirm the new {image} durably."),
        "canceling" => format!("It waits for {device} to say whether it could still cancel."),
        other => format!("It waits for {device} ({other})."),
    })
}

/// The components that an update changes, where the main one is not among them: then the board installs their
/// images and need not restart.
fn children(update: &UpdateDoc) -> Option<String> {
    let mut numbers: Vec<u8> = update.entries.iter().map(|entry| entry.component).collect();
    if numbers.is_empty() {
        numbers.push(update.component);
    }
    let (last, others) = numbers.split_last()?;
    if numbers.contains(&0) {
        return None;
    }
    let others: Vec<String> = others.iter().map(u8::to_string).collect();
    Some(if others.is_empty() {
        format!("component {last}")
    } else {
        format!("components {} and {last}", others.join(", "))
    })
}

/// That an update waits for a place among the transfers that run: `before` are served first, and `limit` run at
/// a time, of all or of the `network` named.
pub(crate) fn place(before: usize, limit: u32, network: Option<IpAddr>) -> String {
    let which = match (limit, network) {
        (1, None) => "the transfer that runs".to_owned(),
        (_, None) => format!("one of {limit} transfers"),
        (1, Some(network)) => format!("the transfer that runs in its network {}", subnet(network)),
        (_, Some(network)) => format!(
            "one of {limit} transfers in its network {}",
            subnet(network)
        ),
    };
    match before {
        0 => format!("It waits for {which} to end: it is the next."),
        1 => format!("It waits for {which} to end: 1 is before it."),
        _ => format!("It waits for {which} to end: {before} are before it."),
    }
}

/// That an update waits for an operator, since the gateway cannot read its `image`.
pub(crate) fn unreadable(image: &str, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::NotFound => "its file is missing".to_owned(),
        _ => error.to_string(),
    };
    format!(
        "It waits for you: the gateway cannot read its image {image} ({why}): add it again with `dialhome image add`."
    )
}

/// That `count` updates wait so, with what is said of that of one `device`.
pub(crate) fn unreadable_images(count: usize, device: &str, sentence: &str) -> String {
    let (updates, wait) = if count == 1 {
        ("update", "waits")
    } else {
        ("updates", "wait")
    };
    format!(
        "{count} {updates} {wait} for an image that cannot be read; that of {device}: {}",
        lower_first(sentence)
    )
}

fn subnet(network: IpAddr) -> String {
    let bits = if network.is_ipv4() { 24 } else { 48 };
    format!("{network}/{bits}")
}

/// What can go wrong for good with an update, a sentence for each component; none where the old images come back by
/// themselves, or nobody knows.
pub(crate) fn risks(update: &UpdateDoc) -> Option<String> {
    let several = update.entries.len() > 1;
    let risks = update.entries.iter().filter_map(|entry| {
        let revert = entry.revert.as_deref()?;
        risk(&update.device, entry.component, several, revert)
    });
    let risks: Vec<String> = risks.collect();
    (!risks.is_empty()).then(|| risks.join(" "))
}

/// The same for one component, by what the board says of `revert` (spec/protocol.md section 9.4). It is named where it
/// is one of `several`, or not the main one.
pub(crate) fn risk(device: &str, component: u8, several: bool, revert: &str) -> Option<String> {
    let (keeps, on) = if several || component != 0 {
        (
            format!("Component {component} of {device}"),
            format!("component {component} of {device}"),
        )
    } else {
        (device.to_owned(), device.to_owned())
    };
    match Revert::from_name(revert)? {
        Revert::NONE => Some(format!(
            "{keeps} keeps no older image: if this one is bad, nothing can put the old one back but a visit."
        )),
        Revert::BY_IMAGE => Some(format!(
            "On {on} only the new image itself puts the old one back: one that crashes before it can dial home stays, until somebody goes there."
        )),
        _ => None,
    }
}

/// What the board waits for; none where there is nothing to do.
pub(crate) fn device(
    device: &DeviceDoc,
    open: Option<&UpdateDoc>,
    presence: &Presence,
    hold: Hold,
) -> Option<String> {
    let id = &device.device;
    let held = match hold {
        Hold { all: true, .. } => {
            Some("Everything is on hold: `dialhome release` lets it go on.".to_owned())
        }
        Hold { device: true, .. } => Some(format!(
            "The device is on hold: `dialhome release {id}` lets it go on."
        )),
        Hold { .. } => None,
    };
    if let Some(open) = open {
        let waits = update(open, presence, hold)?;
        return Some(format!(
            "Update {} to {}: {}",
            open.update,
            open.image,
            lower_first(&waits)
        ));
    }
    if held.is_some() {
        return held;
    }
    if let Some(sentence) = &presence.waiting_for {
        return Some(sentence.clone());
    }
    if device.key_rotation {
        return Some(if presence.online {
            format!("It waits for {id} to dial again with its new key.")
        } else {
            format!("It waits for {id} to dial home; it is given a new key then.")
        });
    }
    if !device.gateways_stored {
        return Some(format!(
            "It waits for {id} to store its new list of gateways."
        ));
    }
    if device.last_contact.is_none() {
        return Some(format!(
            "It waits for {id} to dial home for the first time."
        ));
    }
    None
}

/// Why a board has put an update off.
fn put_off(update: &UpdateDoc) -> String {
    let Some(reason) = &update.reason else {
        return "it gave no reason".into();
    };
    match Reason::from_name(reason) {
        Some(Reason::BUSY) => "it is busy".into(),
        Some(Reason::BATTERY_LOW) => "its battery is low".into(),
        Some(Reason::TOO_HOT) => "it is too hot".into(),
        Some(Reason::OUTBOX_FULL) => "it has outcomes to hand over first".into(),
        Some(Reason::STORAGE) => {
            "its storage does not take what it must remember; see that its card or flash is there, has room and may be written".into()
        }
        Some(Reason::ON_TRIAL) => "an image is on trial there".into(),
        _ => reason.replace('_', " "),
    }
}

fn lower_first(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(letters).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::State;
    use crate::store::docs::UpdateEntryDoc;

    fn doc(state: &str) -> UpdateDoc {
        let at = crate::store::now();
        UpdateDoc {
            update: "00".into(),
            device: "pump-1".into(),
            image: "pump@2".into(),
            component: 0,
            digest: String::new(),
            entries: Vec::new(),
            state: state.into(),
            reason: None,
            detail: None,
            output: None,
            revert: None,
            warning: None,
            size: 100,
            committed: 40,
            sent: 50,
            resent: 0,
            sessions: 1,
            created: at,
            changed: at,
            deadline: at,
            waiting_for: None,
        }
    }

    #[test]
    fn every_state_that_has_not_ended_has_a_sentence_and_no_other_has() {
        for online in [false, true] {
            let presence = Presence {
                online,
                ..Presence::default()
            };
            for state in State::ALL {
                let sentence = update(&doc(state.name()), &presence, Hold::default());
                assert_eq!(
                    sentence.is_none(),
                    state.is_terminal(),
                    "{state}: {sentence:?}"
                );
                assert!(
                    sentence.is_none_or(
                        |sentence| sentence.ends_with('.') && !sentence.contains("({})")
                    )
                );
            }
        }
    }

    #[test]
    fn a_place_that_is_waited_for_is_said_in_a_sentence() {
        assert_eq!(
            place(3, 1_000, None),
            "It waits for one of 1000 transfers to end: 3 are before it."
        );
        assert_eq!(
            place(0, 1, None),
            "It waits for the transfer that runs to end: it is the next."
        );
        assert_eq!(
            place(1, 20, Some("192.0.2.0".parse().unwrap())),
            "It waits for one of 20 transfers in its network 192.0.2.0/24 to end: 1 is before it."
        );
    }

    #[test]
    fn every_reason_to_put_an_update_off_is_said_in_words() {
        let presence = Presence {
            online: true,
            ..Presence::default()
        };
        for (reason, words) in [
            (Reason::BUSY, "busy"),
            (Reason::BATTERY_LOW, "battery is low"),
            (Reason::TOO_HOT, "too hot"),
            (Reason::OUTBOX_FULL, "outcomes"),
            (Reason::STORAGE, "card or flash"),
            (Reason::ON_TRIAL, "on trial"),
            (Reason(99), "code 99"),
        ] {
            let mut deferred = doc("deferred");
            deferred.reason = Some(reason.to_string());
            let sentence = update(&deferred, &presence, Hold::default()).unwrap();
            assert!(
                sentence.contains(words) && !sentence.contains('_'),
                "{sentence}"
            );
        }
    }

    #[test]
    fn only_what_cannot_be_taken_back_is_a_risk() {
        for revert in Revert::NAMED {
            let bad = matches!(*revert, Revert::NONE | Revert::BY_IMAGE);
            let sentence = risk("pump-1", 0, false, &revert.to_string());
            assert_eq!(sentence.is_some(), bad, "{revert}: {sentence:?}");
        }
        assert_eq!(risk("pump-1", 0, false, "code_9"), None);
    }

    #[test]
    fn of_several_components_the_one_is_named() {
        let entry = |component, committed, under_way, revert: &str| UpdateEntryDoc {
            component,
            digest: String::new(),
            size: 50,
            committed,
            under_way,
            revert: Some(revert.into()),
        };
        let mut update = doc("transferring");
        update.entries = vec![entry(1, 50, false, "none"), entry(0, 20, true, "by_image")];
        let presence = Presence {
            online: true,
            ..Presence::default()
        };
        let waits = |update: &UpdateDoc| super::update(update, &presence, Hold::default()).unwrap();
        assert_eq!(
            waits(&update),
            "It waits for pump-1 to commit the remaining 30 of 50 bytes of component 0."
        );
        update.state = "verifying".into();
        assert!(waits(&update).ends_with("the whole image of component 0."));
        update.state = "activating".into();
        assert!(waits(&update).contains("the new images"));
        let risks = risks(&update).unwrap();
        assert!(risks.starts_with("Component 1 of pump-1 keeps no older image"));
        assert!(risks.contains(" On component 0 of pump-1 only the new image"));
    }

    #[test]
    fn a_child_is_installed_and_the_main_component_restarted_into() {
        let waits = |components: &[u8], online| {
            let mut activating = doc("activating");
            activating.component = components[0];
            let entries = components.iter().map(|component| UpdateEntryDoc {
                component: *component,
                digest: String::new(),
                size: 100,
                committed: 100,
                under_way: false,
                revert: None,
            });
            activating.entries = entries.collect();
            let presence = Presence {
                online,
                ..Presence::default()
            };
            update(&activating, &presence, Hold::default()).unwrap()
        };
        assert_eq!(
            waits(&[1], true),
            "It waits while pump-1 installs the new image of component 1."
        );
        assert_eq!(
            waits(&[1], false),
            "It waits for pump-1 to dial home; the board installs the new image of component 1."
        );
        assert_eq!(
            waits(&[3, 1, 2], true),
            "It waits while pump-1 installs the new images of components 3, 1 and 2."
        );
        for of_the_main_one in [&[0][..], &[1, 0]] {
            assert!(waits(of_the_main_one, true).contains("to restart into the new image"));
            assert!(waits(of_the_main_one, false).contains("its restart into the new image"));
        }
    }

    #[test]
    fn an_image_that_cannot_be_read_is_named_with_what_to_do() {
        let missing = unreadable("pump@2", &io::ErrorKind::NotFound.into());
        assert_eq!(
            missing,
            "It waits for you: the gateway cannot read its image pump@2 (its file is missing): add it again with `dialhome image add`."
        );
        let short = io::Error::new(
            io::ErrorKind::InvalidData,
            "its file has 1 bytes, and it has 2",
        );
        assert!(unreadable("pump@2", &short).contains("(its file has 1 bytes, and it has 2)"));
        let of_all = unreadable_images(2, "pump-1", &missing);
        assert!(
            of_all.starts_with(
                "2 updates wait for an image that cannot be read; that of pump-1: it waits"
            ),
            "{of_all}"
        );
    }

    #[test]
    fn an_overdue_update_waits_for_what_the_state_below_waits_for() {
        let mut overdue = doc("overdue");
        overdue.detail =
            Some("trial since 2026-01-01T00:00:00Z; overdue since 2026-01-02T00:00:00Z".into());
        let presence = Presence {
            online: true,
            ..Presence::default()
        };
        assert_eq!(
            update(&overdue, &presence, Hold::default()),
            update(&doc("trial"), &presence, Hold::default())
        );
    }

    #[test]
    fn a_hold_is_named_where_the_gateway_would_act_next() {
        let hold = Hold {
            all: false,
            device: true,
        };
        let presence = Presence {
            online: true,
            ..Presence::default()
        };
        assert!(
            update(&doc("queued"), &presence, hold)
                .unwrap()
                .contains("release pump-1")
        );
        assert!(
            update(&doc("trial"), &presence, hold)
                .unwrap()
                .contains("confirm")
        );
    }
}
