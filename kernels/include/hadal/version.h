// Version of the library, for caches that are keyed by it.
#pragma once

#define HADAL_VERSION_MAJOR 0
#define HADAL_VERSION_MINOR 1
#define HADAL_VERSION_PATCH 0
#define HADAL_VERSION_STRING "0.1.0"
