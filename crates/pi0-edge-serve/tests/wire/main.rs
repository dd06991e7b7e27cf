//! A server over the small policy, and what its clients get: answers, words, closes.

mod client;
mod malformed;
mod messages;
mod requests;
