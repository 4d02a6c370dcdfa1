# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_atan2', verdict='FAIL', culprit_op='atan',
 source_url='https://github.com/apple/coremltools/pull/2769',
 expect='atan2(0, -1) is 0 instead of pi')
class M(nn.Module):
    def forward(self, y, x): return torch.atan2(y, x)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[-1.0, 1.0, -2.0]]),)
