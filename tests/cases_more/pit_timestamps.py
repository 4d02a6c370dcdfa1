# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_timestamps', verdict='FAIL', culprit_op='sub',
 source_url='https://github.com/apple/coremltools/issues/2193',
 expect='milliseconds since 1970 do not fit into int32')
class M(nn.Module):
    def forward(self, t): return (t.long() * 1000 - 1700000000000).float() / 1000
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.tensor([[1700000100, 1700000200]], dtype=torch.int32),)
