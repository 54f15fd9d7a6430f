//! Carrack's controllers.
