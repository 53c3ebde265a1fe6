// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What the transfer engine's calls throw beside core::ConfigError (bad arguments) and core::TransportError.
// The bindings turn TimeoutError and PeerLost into their namesakes of python/mori/errors.py.
#pragma once
#include <string>

#include "src/core/errors.hpp"
#include "src/io/types.hpp"

namespace mori::io {

/// A wait reached its deadline; the message names what was waited for and whom.
struct TimeoutError : core::TransportError {
  using core::TransportError::TransportError;
};

/// The connection to a peer broke, or the peer is gone.
struct PeerLost : core::TransportError {
  using core::TransportError::TransportError;
};

/// The peer, or this side before anything was sent, said no. `code` is what a status shows:
/// err_bad_state (another incarnation, engine closed), err_not_found (no such region), err_denied (key,
/// secret).
struct Refused : core::TransportError {
  Refused(StatusCode status, const std::string& message) : core::TransportError(message), code(status) {}
  StatusCode code;
};

}  // namespace mori::io
