//! Which links are travelled, and with which image.

use crate::Error;
use crate::compare::Setup;
use crate::fleet::words::Link;
use crate::ip::Shape;
use std::time::Duration;

/// A link, what happens on it, and the names of its figures.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) name: &'static str,
    /// A preset of [`Link`]; None: [`clean`].
    preset: Option<&'static str>,
    loss: f64,
    /// Which of [`image_sizes`].
    image: usize,
    /// It is travelled alone.
    pub(super) quick: bool,
    /// A blackout in the middle of the image.
    pub(super) dark: Option<Duration>,
    pub(super) keys: Keys,
}

/// Names of a link's figures.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) welcome: &'static str,
    pub(super) transfer: &'static str,
    pub(super) air: &'static str,
    pub(super) again: &'static str,
    pub(super) recovery: &'static str,
    pub(super) redials: &'static str,
    pub(super) twice: &'static str,
}

macro_rules! course {
    ($name:literal, $preset:expr, loss $loss:expr, image $image:expr, quick $quick:expr, dark $dark:expr) => {
        Course {
            name: $name,
            preset: $preset,
            loss: $loss,
            image: $image,
            quick: $quick,
            dark: $dark,
            keys: Keys {
                welcome: concat!($name, ": dial to Welcome"),
                transfer: concat!($name, ": first chunk to last ack"),
                air: concat!($name, ": air beyond the image"),
                again: concat!($name, ": sent again by the transport"),
                recovery: concat!($name, ": from its end to the next ack"),
                redials: concat!($name, ": sessions more than one"),
                twice: concat!($name, ": image sent twice"),
            },
        }
    };
}

const LONG: Option<Duration> = Some(Duration::from_secs(30));
const SHORT: Option<Duration> = Some(Duration::from_secs(2));

const ALL: [Course; 8] = [
    course!("clean", None, loss 0.0, image 0, quick true, dark None),
    course!("3g", Some("3g"), loss 0.0, image 0, quick false, dark None),
    course!("lte_m", Some("lte_m"), loss 0.0, image 1, quick false, dark None),
    course!("lte_m, 2 % lost", Some("lte_m"), loss 0.02, image 1, quick false, dark None),
    course!("2g", Some("2g"), loss 0.0, image 1, quick false, dark None),
    course!("nb_iot", Some("nb_iot"), loss 0.0, image 2, quick false, dark None),
    course!("lte_m, dark for 30 s", Some("lte_m"), loss 0.0, image 1, quick false, dark LONG),
    course!("2g, dark for 30 s", Some("2g"), loss 0.0, image 1, quick false, dark LONG),
];

const SMALL: [Course; 3] = [
    course!("clean", None, loss 0.0, image 0, quick true, dark None),
    course!("lte_m, 2 % lost", Some("lte_m"), loss 0.02, image 1, quick false, dark None),
    course!("lte_m, dark for 2 s", Some("lte_m"), loss 0.0, image 1, quick false, dark SHORT),
];

/// The links of a run.
pub(super) const fn courses(is_small: bool) -> &'static [Course] {
    if is_small { &SMALL } else { &ALL }
}

/// Sizes of the images: what the quick links take within seconds the slow ones do not. Each is
/// more than a window, so that something is acknowledged on the way.
pub(super) fn image_sizes(setup: &Setup) -> [usize; 3] {
    const LEAST: usize = 48 * 1024;
    [setup.image, setup.image / 4, setup.image / 16].map(|size| size.max(LEAST))
}

/// The number and size of a course's image.
pub(super) fn image_of(setup: &Setup, course: &Course) -> (usize, usize) {
    let sizes = image_sizes(setup);
    (course.image, sizes.get(course.image).copied().unwrap_or(0))
}

/// A link that is in no board's way: 10 Mbit/s and 40 ms.
fn clean() -> Link {
    Link {
        name: "clean".into(),
        down_bits_per_s: 10_000_000,
        up_bits_per_s: 10_000_000,
        round_trip_ms: 40,
        ..Link::default()
    }
}

impl Course {
    fn link(&self) -> Result<Link, Error> {
        match self.preset {
            None => Ok(clean()),
            Some(name) => {
                Link::preset(name).ok_or_else(|| Error::new(format!("there is no preset `{name}`")))
            }
        }
    }

    /// The link at the level of packets.
    pub(super) fn shape(&self) -> Result<Shape, Error> {
        Ok(Shape::of(&self.link()?, self.loss))
    }

    /// The link in words.
    pub(super) fn about(&self) -> String {
        let link = self.link().unwrap_or_default();
        let mut text = format!(
            "{} kbit/s down, {} up, {} ms round trip",
            link.down_bits_per_s / 1000,
            link.up_bits_per_s / 1000,
            link.round_trip_ms
        );
        if link.jitter_ms > 0 {
            text += &format!(", up to {} ms more each way", link.jitter_ms);
        }
        if self.loss > 0.0 {
            text += &format!(", {} % of packets lost each way", self.loss * 100.0);
        }
        if let Some(dark) = self.dark {
            text += &format!(
                ", nothing passes for {} s from the middle of the image on",
                dark.as_secs()
            );
        }
        text
    }
}
