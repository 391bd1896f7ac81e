//! What an operator can do about an update that ended badly, one sentence per reason.

use crate::store::docs::UpdateDoc;
use dialhome_proto::code::{Reason, Revert};

/// Whether it depends on the board being `online` what can be done about the update.
pub(crate) fn asks_for_presence(update: &UpdateDoc) -> bool {
    update.reason.as_deref().and_then(Reason::from_name) == Some(Reason::REVERT_FAILED)
}

/// What can be done about an update that has ended; `online` says whether its board is, where that is known.
pub(crate) fn advice(update: &UpdateDoc, online: Option<bool>) -> Option<String> {
    let sentence = by_reason(update.reason.as_deref()?)?;
    if !asks_for_presence(update) {
        return Some(sentence.to_owned());
    }
    Some(format!("{sentence} {}", not_put_back(update, online)))
}

/// What can be done where an old image was not put back, by who was to do that.
fn not_put_back(update: &UpdateDoc, online: Option<bool>) -> String {
    // Of several components the weakest.
    let revert = update.revert.as_deref().and_then(Revert::from_name);
    let why = match revert {
        Some(Revert::NONE) => {
            "The board keeps no older image of what stays, so the new one stays there. "
        }
        Some(Revert::RESTORE_COPY) => {
            "Its agent tries again at each start: see that what it installs on is there and has power, and restart the agent. "
        }
        _ => "",
    };
    let next = match online {
        Some(true) => "The board is online: push an image that works.",
        Some(false) => {
            "The board is not online: if it does not dial home by itself, it needs a visit."
        }
        None => "If the board does not dial home by itself, it needs a visit.",
    };
    format!("{why}{next}")
}

/// The sentence for the reason; none where the reason says it all.
fn by_reason(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "no_trust" => {
            "The board trusts nobody: give its file a [trust] table as `dialhome device add` writes it."
        }
        "unknown_signer" => {
            "Sign the image with a key that the board trusts: one whose FILE.pub it was provisioned with."
        }
        "bad_signature" => {
            "Sign the image with as many of the board's keys as its trust asks for (--key, once for each)."
        }
        "bad_manifest" => "Sign the image again with this version of dialhome.",
        "wrong_product" => {
            "The board is of another product than its record says: compare its file with `dialhome device show`."
        }
        "wrong_device" => "Sign the image for this device, or without --device.",
        "wrong_component" => {
            "`dialhome device show` lists the components that the board has; sign with --component for one of them."
        }
        "wrong_hardware" => "Sign an image for the board's hardware revision (--hardware A..B).",
        "too_big" => {
            "The image is larger than the board's slot: `dialhome device show` says how large that is."
        }
        "size_mismatch" | "unknown_encoding" => "Add the image again.",
        "withdrawn" => "The board's trust has withdrawn this image: push a newer one.",
        "below_floor" => {
            "An image that was confirmed before forbids this one: sign it again with a counter above the floor."
        }
        "downgrade_not_asked" => {
            "The image is older than the running one: push it with --downgrade if that is meant."
        }
        "counter_conflict" => {
            "Another image with this counter runs, or what runs is not known: sign with a higher --counter."
        }
        "required_digest" => "Push the image that this one requires first.",
        "self_test" => "The image's own test failed: the board runs the old image again.",
        "install_failed" => "The board's install command failed: the board's log has its output.",
        "crashed" => "The image did not get as far as being confirmed: the old one runs again.",
        "no_contact" | "gateway_silent" => {
            "The board could not reach a gateway in time. The image is staged there: push it again, nothing is sent twice."
        }
        "old_image_running" | "wrong_image_running" => {
            "What the board runs after its restart is not the image: look at how it boots and installs."
        }
        "storage" => {
            "The board's card or flash did not take the image or what the board must remember: see that it is there, has room and may be written, and push again; what was committed is not sent twice."
        }
        "bad_flash" => {
            "What the board wrote to one place read back wrong, again and again: its card or flash is worn out or faulty. Push again once; if it comes back, replace it."
        }
        "digest_mismatch" => {
            "Every piece arrived, and what the board read back as a whole is not the signed image: its card or flash fails, or something else writes there. Push again; it starts from the beginning."
        }
        "manifest_unknown" => "The board no longer has the image's manifest: push again.",
        "not_staged" => "The board no longer had the image when it was to start it: push again.",
        "power_lost" => "The board lost its power on the way: push again.",
        "revert_failed" => "The old image could not be put back.",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{advice, by_reason};
    use crate::store::docs::UpdateDoc;
    use dialhome_proto::code::Reason;

    #[test]
    fn every_reason_that_ends_an_update_badly_has_a_sentence() {
        // These put an update off, pass within a transfer, or are what was wished for.
        let others = [
            Reason::NONE,
            Reason::BUSY,
            Reason::BATTERY_LOW,
            Reason::TOO_HOT,
            Reason::OUTBOX_FULL,
            Reason::CRC,
            Reason::READ_BACK,
            Reason::REWOUND,
            Reason::ALREADY_RUNNING,
            Reason::TOO_LATE,
            Reason::ON_TRIAL,
            Reason::CANCELED,
        ];
        for code in Reason::NAMED.iter().filter(|code| !others.contains(code)) {
            let reason = code.to_string();
            let sentence = by_reason(&reason).unwrap_or_else(|| panic!("none for {reason}"));
            assert!(sentence.ends_with('.'), "{sentence}");
            assert!(!sentence.contains('_'), "not in words: {sentence}");
        }
    }

    #[test]
    fn a_visit_is_advised_only_where_nothing_else_may_help() {
        let said = |reason: &str, revert: Option<&str>, online| {
            let update: UpdateDoc = serde_json::from_value(serde_json::json!({
                "update": "00", "device": "b2", "image": "pump/1@2", "component": 1, "digest": "",
                "state": "failed", "reason": reason, "revert": revert, "size": 1, "committed": 1,
                "sent": 1, "resent": 0, "sessions": 1, "created": "2026-01-01T00:00:00Z",
                "changed": "2026-01-01T00:00:00Z", "deadline": "2026-01-02T00:00:00Z",
            }))
            .unwrap();
            advice(&update, online).unwrap()
        };
        for revert in ["none", "restore_copy", "swap", "by_image"]
            .map(Some)
            .into_iter()
            .chain([None])
        {
            let online = said("revert_failed", revert, Some(true));
            assert!(
                online.contains("is online: push") && !online.contains("visit"),
                "{online}"
            );
            for unknown in [Some(false), None] {
                let text = said("revert_failed", revert, unknown);
                assert!(
                    text.contains("if it does not dial home")
                        || text.contains("If the board does not"),
                    "{text}"
                );
                assert!(text.ends_with("needs a visit."), "{text}");
            }
            let tries = online.contains("tries again at each start");
            assert_eq!(tries, revert == Some("restore_copy"), "{online}");
            assert_eq!(
                online.contains("keeps no older image"),
                revert == Some("none"),
                "{online}"
            );
        }
        let other = said("crashed", Some("none"), Some(true));
        assert!(!other.contains("online"), "{other}");
    }

    #[test]
    fn what_the_medium_did_not_take_and_what_it_did_not_keep_are_told_apart() {
        let [storage, bad_flash, mismatch] =
            ["storage", "bad_flash", "digest_mismatch"].map(|reason| by_reason(reason).unwrap());
        assert!(storage.contains("may be written") && storage.contains("room"));
        assert!(bad_flash.contains("read back wrong"));
        assert!(mismatch.contains("not the signed image"));
    }
}
