"""What containerd's clients rely on in a shim, as cases that run against any shim."""

from ._bench import PromiseBrokenError as PromiseBrokenError
from ._bench import ShimUnderTest as ShimUnderTest
from ._suite import CASES as CASES
from ._suite import Case as Case
from ._suite import check_task_service as check_task_service
