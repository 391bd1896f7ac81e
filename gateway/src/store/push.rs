//! A push: what an operator asks of a device becomes an update, joins one, or is refused with reasons.

use dialhome_proto::code::Revert;
use dialhome_proto::manifest::Manifest;
use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;

use super::docs::UpdateDoc;
use super::sqlite::value;
use super::updates::{
    apply, both, cancel, counters, doc, event, open_ids, outcome, put_intent, put_state,
};
use super::writer::Write;
use super::{
    Change, Counters, Device, ImageRecord, IntentEntry, State, Store, StoreError, UpdateIntent,
    UpdateState, devices, images, session, trust,
};

/// Longest deadline of a push, in seconds (a year).
const DEADLINE_S_MAX: u64 = 366 * 24 * 3600;

/// What an operator asks of a push.
#[derive(Clone, Debug)]
pub struct Push {
    /// The device.
    pub device: String,
    /// The image, `P[/component]@V`.
    pub image: String,
    /// Time until the deadline, in seconds.
    pub deadline_s: u64,
    /// Takes the place of another update that is open.
    pub replace: bool,
    /// An older counter, above the floor, is meant.
    pub downgrade: bool,
    /// Payload bytes that may be sent before it pauses; none for three times the size.
    pub max_bytes: Option<u64>,
}

/// What a push did.
#[derive(Clone, Debug)]
pub struct Created {
    /// The update.
    pub update: UpdateDoc,
    /// The same push was open already: this is that one.
    pub joined: bool,
}

impl Store {
    /// Pushes an image to a device.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` (another update is open, the image is not for this device), `Invalid`.
    pub async fn push(&self, push: Push) -> Result<Created, StoreError> {
        self.change(move |write| create(write, push)).await
    }
}

fn create(write: &mut Write<'_>, push: Push) -> Result<Created, StoreError> {
    let device = devices::known(write.db, &push.device)?;
    let image = images::find(write.db, &push.image)?
        .ok_or_else(|| StoreError::not_found("image", &push.image))?;
    is_for(&device, &image)?;
    images::has_needed_checks(write.db, &image, images::WHEN_PUSHING)?;
    let mut open = open_ids(write.db, &device.id)?
        .into_iter()
        .map(|id| both(write.db, &id))
        .collect::<Result<Vec<_>, _>>()?;
    // The newest of them is what the operator wanted last; an older one is on its way out.
    if let Some((intent, state)) = open.last()
        && intent.cancel_requested.is_none()
        && intent.image == image.name
        && intent.manifest_digest == image.manifest_digest
    {
        let (mut intent, mut state) = (intent.clone(), state.clone());
        if let Some(max_bytes) = push.max_bytes
            && max_bytes != intent.max_bytes
        {
            intent.max_bytes = max_bytes;
            put_intent(write.db, &intent)?;
            // What was sent may be in memory only, and the limit counts all of it.
            state.counters = counters(write.memory, &intent, &state);
            if state.paused && state.counters.sent < max_bytes {
                let unpause = Change {
                    paused: Some(false),
                    ..Change::default()
                };
                apply(write, &intent.update, unpause)?;
                state = both(write.db, &intent.update)?.1;
            }
            write.wake(&device.id);
        }
        return Ok(Created {
            update: doc(&intent, &state),
            joined: true,
        });
    }
    let deadline =
        SignedDuration::from_secs(push.deadline_s.clamp(1, DEADLINE_S_MAX).cast_signed());
    let intent = UpdateIntent {
        update: new_id(write)?,
        device: device.id.clone(),
        image: image.name.clone(),
        digest: image.digest.clone(),
        manifest_digest: image.manifest_digest.clone(),
        component: image.component,
        size: image.size,
        created: write.now,
        deadline: write.now.checked_add(deadline).unwrap_or(Timestamp::MAX),
        downgrade: push.downgrade,
        max_bytes: push.max_bytes.unwrap_or_else(|| 3 * u64::from(image.size)),
        entries: image
            .entries
            .iter()
            .map(|entry| IntentEntry {
                component: entry.component,
                digest: entry.digest.clone(),
                size: entry.size,
            })
            .collect(),
        cancel_requested: None,
        abandoned: None,
        replaced_by: None,
    };
    for (other, _) in &mut open {
        if other.cancel_requested.is_some() {
            continue;
        }
        if !push.replace {
            return Err(StoreError::conflict(
                "update_open",
                format!(
                    "update {} of device {} to {} has not ended",
                    other.update, device.id, other.image
                ),
                format!(
                    "Push with --replace, wait for it, or `dialhome update cancel {}`.",
                    other.update
                ),
            ));
        }
        cancel(write, &other.update, "replaced")?;
        let (mut stored, _) = both(write.db, &other.update)?;
        stored.replaced_by = Some(intent.update.clone());
        put_intent(write.db, &stored)?;
    }
    let reverts = reverts(write.db, &intent)?;
    let mut state = UpdateState {
        state: State::Queued,
        reason: None,
        detail: None,
        output: None,
        revert: weakest(&reverts),
        reverts: if intent.entries.is_empty() {
            Vec::new()
        } else {
            reverts
        },
        counters: Counters::default(),
        changed: write.now,
        heard: false,
        seen: false,
        overdue: None,
        paused: false,
        later: Vec::new(),
    };
    put_intent(write.db, &intent)?;
    put_state(write, &intent, None, &state)?;
    event(write, &intent, None, "queued", None, None)?;
    if runs(write.db, &intent)? {
        state = both(write.db, &intent.update)?.1;
        let these = if intent.entries.is_empty() {
            "this image"
        } else {
            "these images"
        };
        state.detail = Some(format!("the board already runs {these}: nothing was sent"));
        put_state(write, &intent, Some(outcome(&state)), &state)?;
        let (intent, state) = apply(
            write,
            &intent.update,
            Change {
                reason: Some("already_running".into()),
                detail: state.detail,
                ..Change::to(State::Confirmed)
            },
        )?;
        return Ok(Created {
            update: doc(&intent, &state),
            joined: false,
        });
    }
    write.touch(&device.id);
    write.wake(&device.id);
    Ok(Created {
        update: doc(&intent, &state),
        joined: false,
    })
}

/// Refuses what the board would refuse, so far as the record tells.
fn is_for(device: &Device, image: &ImageRecord) -> Result<(), StoreError> {
    let refuse = |code, message: String, hint: &str| Err(StoreError::conflict(code, message, hint));
    if device.product != image.product {
        return refuse(
            "wrong_product",
            format!(
                "{} is for product {}, and device {} is a {}",
                image.name, image.product, device.id, device.product
            ),
            "`dialhome image list` shows the images.",
        );
    }
    if !image.devices.is_empty() && !image.devices.contains(&device.id) {
        return refuse(
            "wrong_device",
            format!(
                "{} was signed for {} only",
                image.name,
                image.devices.join(", ")
            ),
            "Sign it again without a list of devices.",
        );
    }
    let manifest = Manifest::parse(&image.manifest)
        .map_err(|fault| StoreError::Database(fault.to_string()))?;
    match trust::refuses(device, &manifest) {
        Some(reason) => refuse(
            "not_trusted",
            format!("device {} would refuse {}: {reason}", device.id, image.name),
            "Sign the image with a key whose FILE.pub was given to `device add --trust`.",
        ),
        None => Ok(()),
    }
}

/// What the board's last Hello said it can do about a bad image, for each component of the update.
pub(super) fn reverts(
    db: &Connection,
    intent: &UpdateIntent,
) -> Result<Vec<Option<String>>, StoreError> {
    let components = session::last_hello(db, &intent.device)?
        .map(|hello| hello.components)
        .unwrap_or_default();
    let reverts = intent.entries().into_iter().map(|entry| {
        let mut known = components.iter();
        let found = known.find(|component| component.component == entry.component);
        found.map(|component| component.revert.clone())
    });
    Ok(reverts.collect())
}

/// The one of them that promises least.
pub(super) fn weakest(reverts: &[Option<String>]) -> Option<String> {
    let rank = |revert: &str| match Revert::from_name(revert) {
        Some(Revert::NONE) => 0,
        Some(Revert::BY_IMAGE) => 1,
        Some(Revert::RESTORE_COPY) => 2,
        _ => 3,
    };
    let known = reverts.iter().flatten();
    known.min_by_key(|revert| rank(revert)).cloned()
}

/// The board is connected, and its word is that it runs these very images, and none on trial. Of a board that
/// is away nobody knows: it is asked when it dials home.
fn runs(db: &Connection, intent: &UpdateIntent) -> Result<bool, StoreError> {
    let state = session::state(db, &intent.device)?.filter(|state| state.connected);
    let hello = state.and_then(|state| state.hello);
    Ok(hello.is_some_and(|hello| {
        intent.entries().iter().all(|entry| {
            hello.components.iter().any(|component| {
                component.component == entry.component
                    && component.trial.is_none()
                    && component.digest.as_deref() == Some(entry.digest.as_str())
            })
        })
    }))
}

/// Seconds and random bits: rises with time, and does not repeat after a restore from an older backup.
fn new_id(write: &Write<'_>) -> Result<String, StoreError> {
    let seconds = u32::try_from(write.now.as_second()).unwrap_or(u32::MAX);
    loop {
        let mut random = [0; 4];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| StoreError::Database("the system gave no random bytes".into()))?;
        let id = format!("{seconds:08x}{}", super::hex(&random));
        if value::<i64>(write.db, "SELECT 1 FROM update_state WHERE id = ?1", [&id])?.is_none() {
            return Ok(id);
        }
    }
}
