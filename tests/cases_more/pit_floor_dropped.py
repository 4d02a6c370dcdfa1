# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_floor_dropped', verdict='FAIL', culprit_op='floor_div',
 source_url='https://github.com/apple/coremltools/issues/2762',
 expect='x // 1 is dropped')
class M(nn.Module):
    def forward(self, x): return x // 1
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 4) * 3,)
