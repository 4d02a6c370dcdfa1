# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='dyn_branch_on_shape', verdict='FAIL', culprit_op=None,
 source_url='https://github.com/apple/coremltools/issues/914',
 expect='a branch on a flexible size is baked', dynamic={0: {1: (4, 32)}})
class M(nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[1] > 10 else x - 1
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 8, 3),)
