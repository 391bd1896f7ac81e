//! Both real machines against each other, thousands of seeds a run.

use dialhome_loadtest::sim::boot::{Loader, Nature};
use dialhome_loadtest::sim::fixture::Image;
use dialhome_loadtest::sim::gate::update_id;
use dialhome_loadtest::sim::world::{Setup, World};
use dialhome_proto::gateway::State;
use dialhome_proto::manifest::TrialBudget;
use std::rc::Rc;

const DAY: u64 = 24 * 3600 * 1000;

fn library(size: usize) -> Rc<Vec<Image>> {
    let budget = TrialBudget::default();
    let mut images = vec![Image::new(Nature::Good, 3000, 1, budget, 1)];
    for (place, nature) in Nature::ALL.into_iter().enumerate() {
        let counter = 2 + u64::try_from(place).unwrap();
        images.push(Image::new(nature, size, counter, budget, counter));
    }
    Rc::new(images)
}

#[test]
fn a_good_image_over_a_good_link_is_confirmed() {
    for loader in [Loader::Patient, Loader::Strict, Loader::Direct] {
        let library = library(20_000);
        let mut world = World::new(
            Setup {
                loader,
                ..Setup::default()
            },
            Rc::clone(&library),
        );
        world.store.borrow_mut().log = Some(Vec::new());
        world.store.borrow_mut().push(library[1].plan(update_id(1)));
        let done = world.run_until(30 * DAY, World::is_at_rest);
        for line in world.store.borrow().log.as_ref().unwrap() {
            eprintln!("{line}");
        }
        assert!(done, "{}", world.describe());
        let store = world.store.borrow();
        assert_eq!(store.updates[0].state, State::Confirmed);
        assert_eq!(world.images.borrow().running(), library[1].bytes);
        assert_eq!(store.updates[0].counters.sent, 20_000);
    }
}
