//! What the pair tests share.

use dialhome_loadtest::sim::boot::Nature;
use dialhome_loadtest::sim::fixture::Image;
use dialhome_loadtest::sim::gate::update_id;
use dialhome_loadtest::sim::world::{Setup, World};
use dialhome_proto::code::Reason;
use dialhome_proto::gateway::State;
use dialhome_proto::manifest::TrialBudget;
use std::rc::Rc;

/// A day, in milliseconds.
pub(crate) const DAY: u64 = 24 * 3600 * 1000;

/// An old image, and one of each nature.
pub(crate) fn library(size: usize) -> Rc<Vec<Image>> {
    library_with(size, TrialBudget::default())
}

/// As `library`, with a trial budget.
pub(crate) fn library_with(size: usize, budget: TrialBudget) -> Rc<Vec<Image>> {
    let mut images = vec![Image::new(Nature::Good, 1100, 1, budget, 1)];
    for (place, nature) in Nature::ALL.into_iter().enumerate() {
        let counter = 2 + u64::try_from(place).unwrap();
        images.push(Image::new(nature, size, counter, budget, counter));
    }
    Rc::new(images)
}

/// The place of the image of this nature in the library.
pub(crate) fn place_of(nature: Nature) -> usize {
    1 + usize::from(nature.mark())
}

/// A world in which this image was pushed.
pub(crate) fn one_update(setup: Setup, library: &Rc<Vec<Image>>, nature: Nature) -> World {
    let world = World::new(setup, Rc::clone(library));
    let plan = library[place_of(nature)].plan(update_id(1));
    world.store.borrow_mut().push(plan);
    world
}

/// How the first update ended.
pub(crate) fn outcome(world: &World) -> (State, Reason) {
    let store = world.store.borrow();
    (store.updates[0].state, store.updates[0].reason)
}

/// What must be true after every run.
pub(crate) fn check_end(world: &World, what: &str) {
    let store = world.store.borrow();
    let images = world.images.borrow();
    let confirmed = store
        .updates
        .iter()
        .rfind(|update| update.state == State::Confirmed);
    let expected = confirmed.map_or(&world.library[0], |update| {
        let mut library = world.library.iter();
        library
            .find(|image| image.manifest_digest == update.plan.manifest)
            .unwrap()
    });
    assert!(
        images.running() == expected.bytes && images.is_final(),
        "{what}: what was confirmed last does not run for good: {}",
        world.describe()
    );
    assert!(
        world
            .library
            .iter()
            .any(|image| image.bytes == images.running()),
        "{what}: a mixed image runs"
    );
    for update in &store.updates {
        let finals = update
            .history
            .iter()
            .filter(|(state, _)| state.is_terminal());
        let mut finals: Vec<_> = finals.collect();
        finals.dedup();
        assert!(finals.len() <= 1, "{what}: two outcomes {finals:?}");
    }
}
