//! What is told of failures, in few words.

/// The first lines of a log: what comes later most often follows from them.
pub(crate) fn shorten(log: &str) -> String {
    const LINES: usize = 20;
    const BYTES: usize = 4000;
    let mut short = log.lines().take(LINES).collect::<Vec<_>>().join("\n");
    if short.len() > BYTES {
        short.truncate(short.floor_char_boundary(BYTES));
        short.push('…');
    }
    match log.lines().count() {
        n if n > LINES => format!("{short}\n… and {} lines more", n - LINES),
        _ => short,
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_shortened() {
        assert_eq!(shorten("a\nb"), "a\nb");
        assert!(shorten(&"x\n".repeat(30)).ends_with("… and 10 lines more"));
        assert!(shorten(&"é".repeat(5000)).len() < 4010);
    }
}
