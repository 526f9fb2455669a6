// Boost.Asio with TLS. Some releases use std::exchange without including what has it.
#pragma once

#include <utility>

#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>
