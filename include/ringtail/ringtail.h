// Everything a user of Ringtail needs.
#pragma once

#include "ringtail/admin.h"
#include "ringtail/assignor.h"
#include "ringtail/consumer.h"
#include "ringtail/error.h"
#include "ringtail/log.h"
#include "ringtail/producer.h"
#include "ringtail/record.h"
#include "ringtail/retry.h"
#include "ringtail/role.h"
#include "ringtail/types.h"
