# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_grid_bicubic', verdict='FAIL', culprit_op='grid_sampler',
 source_url='https://github.com/apple/coremltools/issues/2068',
 expect='the mode of a known op is not known')
class M(nn.Module):
    def forward(self, x, g): return F.grid_sample(x, g, mode='bicubic', align_corners=False)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 2, 6, 6), torch.rand(1, 4, 4, 2) * 2 - 1,)
