//! Whether a fleet fits the open files that a process may have here.

use super::scenario::Scenario;
use crate::Error;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a process has open beside its sockets.
const BESIDE: usize = 256;
/// Files that a crew has open for a board: a connection, and the one before it while that ends.
const PER_BOARD: usize = 2;
/// Boards of a crew, where the scenario does not say how many crews there are.
const BOARDS_PER_CREW: usize = 4_000;

/// Raises this process's limit on open files as far as it may, which the processes that it
/// starts inherit; gives the limit.
#[must_use]
pub(super) fn raise() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    now.map_or(usize::MAX, |files| {
        usize::try_from(files).unwrap_or(usize::MAX)
    })
}

/// Crews for so many boards.
#[must_use]
pub(super) fn crews(scenario: &Scenario, boards: usize) -> usize {
    let wanted = scenario.fleet().crews;
    wanted
        .unwrap_or_else(|| boards.div_ceil(BOARDS_PER_CREW))
        .clamp(1, boards.max(1))
}

/// Checks that the processes of the run may open the files that they need.
///
/// # Errors
/// They may not: which limit, and what would fit.
pub(super) fn check(
    boards: usize,
    crews: usize,
    abusive: usize,
    limit: usize,
) -> Result<(), Error> {
    let gateway = boards + abusive + BESIDE;
    if gateway > limit {
        let room = limit.saturating_sub(BESIDE + abusive);
        return Err(Error::new(format!(
            "{boards} boards do not fit: with {abusive} abusive peers the gateway would need {gateway} open files, and a process may have {limit} here. Play at most {room} (`--boards {room}`), or raise the limit (as root: `ulimit -n {gateway}`)."
        )));
    }
    let in_crew = boards.div_ceil(crews) * PER_BOARD + BESIDE;
    if in_crew > limit {
        let room = (limit.saturating_sub(BESIDE) / PER_BOARD).max(1);
        return Err(Error::new(format!(
            "{boards} boards do not fit into {crews} {}: each would need {in_crew} open files, and a process may have {limit} here (`ulimit -Hn`). Set `crews` of [fleet] to at least {}.",
            if crews == 1 { "crew" } else { "crews" },
            boards.div_ceil(room)
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_said_with_what_would() {
        assert_eq!(check(19_000, 5, 0, 20_000), Ok(()));
        let gateway = check(19_900, 5, 0, 20_000).unwrap_err().to_string();
        assert!(gateway.contains("--boards 19744"), "{gateway}");
        let crew = check(15_000, 1, 0, 20_000).unwrap_err().to_string();
        assert!(
            crew.contains("into 1 crew: ") && crew.contains("at least 2"),
            "{crew}"
        );
        let abusive = check(10_000, 5, 10_000, 20_000).unwrap_err().to_string();
        assert!(abusive.contains("--boards 9744"), "{abusive}");
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let limit = raise();
        assert!(limit >= BESIDE);
        let now = getrlimit(Resource::Nofile);
        assert_eq!(now.current, now.maximum);
    }
}
