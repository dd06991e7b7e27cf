//! The words that values of an enum have in files and on the command line.

/// Gives an enum `ALL`, `as_str` and `Display`; with a name for the whole and how texts are compared, `FromStr` too.
macro_rules! words {
    ($type:ident { $($variant:ident => $word:literal),+ $(,)? }) => {
        impl $type {
            /// Every value, in order.
            pub const ALL: [$type; [$($word),+].len()] = [$($type::$variant),+];

            /// Returns the value's word in files and on the command line.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($type::$variant => $word),+
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
    ($type:ident, $what:literal, $same:path, { $($variant:ident => $word:literal),+ $(,)? }) => {
        words!($type { $($variant => $word),+ });

        impl std::str::FromStr for $type {
            type Err = $crate::error::Error;

            fn from_str(text: &str) -> $crate::error::Result<Self> {
                let found = $type::ALL.into_iter().find(|value| $same(value.as_str(), text));
                let [others @ .., last] = $type::ALL.map($type::as_str);
                let others = || others.join(", ");
                found.ok_or_else(|| err!(InvalidArgument, "{text:?} is no {}; there are {} and {last}", $what, others()))
            }
        }
    };
}
